#include <stdio.h>

#include "checksum.h"
#include "greet.h"

int main(int argc, char **argv)
{
    char text[256];
    size_t length = greet(text, sizeof text, argc > 1 ? argv[1] : "world");
    if (length >= sizeof text)
        length = sizeof text - 1;
    printf("%s\n%08x built from %s\n", text, (unsigned)checksum(text, length), __FILE__);
    return 0;
}
