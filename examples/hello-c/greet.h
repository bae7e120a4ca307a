#ifndef GREET_H
#define GREET_H

#include <stddef.h>

/* Write the greeting for NAME into BUFFER of SIZE bytes; the length it has, or would have had. */
size_t greet(char *buffer, size_t size, const char *name);

#endif
