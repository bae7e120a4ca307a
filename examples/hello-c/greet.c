#include "greet.h"

#include <stdio.h>

#include "messages.h"

size_t greet(char *buffer, size_t size, const char *name)
{
    int length = snprintf(buffer, size, "%s, %s%s", MESSAGE_HELLO, name, MESSAGE_MARK);
    return length < 0 ? 0 : (size_t)length;
}
