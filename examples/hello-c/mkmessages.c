/* Turns lines "NAME text" into a header; built and run by the build itself. */
#include <stdio.h>
#include <string.h>

int main(void)
{
    char line[256];
    puts("/* Generated from messages.txt. */");
    while (fgets(line, sizeof line, stdin)) {
        char *text = strchr(line, ' ');
        if (!text)
            continue;
        *text++ = '\0';
        text[strcspn(text, "\n")] = '\0';
        printf("#define MESSAGE_%s \"%s\"\n", line, text);
    }
    return ferror(stdin) || fflush(stdout) != 0;
}
