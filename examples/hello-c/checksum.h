#ifndef CHECKSUM_H
#define CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* The 32-bit FNV-1a hash of SIZE bytes. */
uint32_t checksum(const char *bytes, size_t size);

#endif
