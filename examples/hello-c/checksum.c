#include "checksum.h"

uint32_t checksum(const char *bytes, size_t size)
{
    uint32_t hash = 2166136261u;
    for (size_t at = 0; at < size; at++)
        hash = (hash ^ (unsigned char)bytes[at]) * 16777619u;
    return hash;
}
