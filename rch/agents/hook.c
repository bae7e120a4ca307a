/* The hook as a process of its own, made at installation where there is a compiler: see hook.py, which does the same.
 *
 * stdin is a question of a coding agent; rchd's answer goes to stdout; whatever is amiss is silence and status 0.
 * Given by the compiler's command line: RCH_WORDS (texts of which a build has one), RCH_STATE ("" or the state
 * directory named at installation), RCH_PYTHON and RCH_HOOK (who starts an rchd that is not there).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_MS 800
#define INPUT_MAX (8u << 20)
#define VALUE_MAX 4096u
#define SOCKET_PATH_MAX 100u /* as client_paths.py */

static const char *const words[] = {RCH_WORDS};
static const char *const variables[] = {
    "HOME", "PATH", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "RCH_ON_WORKER", "RCH_BYPASS",
    "RCH_ENABLED", "RCH_LOCAL_ONLY", "RCH_STATE_DIR", "RCH_CONFIG", "RCH_INVENTORY", "RCH_REQUIRE_REMOTE", "RCH_MODE",
    "RCH_DRY_RUN", "CLAUDE_CONFIG_DIR", "CLAUDE_PROJECT_DIR", "CLAUDECODE", "BASH_MAX_TIMEOUT_MS",
    "BASH_DEFAULT_TIMEOUT_MS", "CARGO_HOME", "CODEX_HOME", "COPILOT_HOME", "COPILOT_CLI", "COPILOT_ALLOW_ALL", "CURSOR_VERSION",
    "GEMINI_CLI_HOME", "OPENCODE_EXPERIMENTAL_BASH_DEFAULT_TIMEOUT_MS"};

static const char *agent = "";

static void put(const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(1, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        data += n;
        size -= (size_t)n;
    }
}

static void silence(void)
{
    if (strcmp(agent, "cursor") == 0)
        put("{}\n", 3);
    _exit(0);
}

static long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int is_one_of(const char *value, const char *const *list)
{
    for (; *list; list++)
        if (strcasecmp(value, *list) == 0)
            return 1;
    return 0;
}

static int switched_off(void)
{
    static const char *const on[] = {"1", "true", "yes", "on", NULL};
    static const char *const off[] = {"0", "false", "no", "off", NULL};
    const char *v = getenv("RCH_ON_WORKER");
    if (v && *v && !is_one_of(v, off))
        return 1;
    v = getenv("RCH_BYPASS");
    if (v && is_one_of(v, on))
        return 1;
    v = getenv("RCH_ENABLED");
    return v && is_one_of(v, off);
}

/* All of stdin; NULL when there is nothing or too much of it. */
static char *read_input(size_t *size)
{
    size_t room = 16384, have = 0;
    char *data = malloc(room);
    for (;;) {
        ssize_t n;
        if (!data)
            return NULL;
        if (have > INPUT_MAX)
            have = INPUT_MAX + 1; /* read on, keep nothing */
        else if (room - have < 8192)
            data = realloc(data, room *= 2);
        if (!data)
            return NULL;
        n = read(0, data + (have > INPUT_MAX ? 0 : have), 8192);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    *size = have;
    return have > 0 && have <= INPUT_MAX ? data : NULL;
}

static int in_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* Is the text that ends before *at* the end of a word? Not behind a JSON escape (backslash n, backslash u0026). */
static int begins_word(const char *data, const char *at)
{
    if (at == data || !in_word(at[-1]))
        return 1;
    if (at - data >= 2 && at[-2] == '\\')
        return 1;
    return at - data >= 6 && at[-6] == '\\' && at[-5] == 'u';
}

/* What stands behind the key of the command; a word of two letters counts as a whole word only. */
static int has_build_word(const char *data, size_t size)
{
    const char *from = memmem(data, size, "command", 7), *end = data + size, *at;
    size_t i;
    for (i = 0; from && i < sizeof words / sizeof *words; i++) {
        size_t length = strlen(words[i]);
        for (at = from; (at = memmem(at, (size_t)(end - at), words[i], length)) != NULL; at++)
            if (length > 2 || (begins_word(data, at) && (at + length == end || !in_word(at[length]))))
                return 1;
    }
    return 0;
}

/* The rule of client_paths.py; 0 where it gives no path that fits. Paths are not normalised: the system does that. */
static int socket_place(char *place, size_t room)
{
    const char *state = getenv("RCH_STATE_DIR"), *run = getenv("XDG_RUNTIME_DIR"), *base = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    int n;
    if (state && *state)
        n = *state == '/' ? snprintf(place, room, "%s/run/rchd.sock", state) : -1;
    else if (run && *run == '/')
        n = snprintf(place, room, "%s/rch/rchd.sock", run);
    else if (base && *base == '/')
        n = snprintf(place, room, "%s/rch/run/rchd.sock", base);
    else if (home && *home == '/')
        n = snprintf(place, room, "%s/.local/state/rch/run/rchd.sock", home);
    else
        n = -1;
    return n > 0 && (size_t)n < room && (size_t)n <= SOCKET_PATH_MAX;
}

/* A process that holds nothing of the agent's starts rchd; we do not wait for it. */
static void start_daemon(void)
{
    int fd;
    pid_t child = fork();
    if (child != 0)
        return;
    setsid();
    if (fork() != 0)
        _exit(0);
    fd = open("/dev/null", O_RDWR);
    dup2(fd, 0);
    dup2(fd, 1);
    dup2(fd, 2);
    for (fd = 3; fd < 256; fd++)
        close(fd);
    if (chdir("/") == 0)
        execl(RCH_PYTHON, RCH_PYTHON, "-I", "-S", RCH_HOOK, "--start", (char *)NULL);
    _exit(0);
}

static int connect_to(const char *place, long until)
{
    struct sockaddr_un address;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    strcpy(address.sun_path, place); /* SOCKET_PATH_MAX fits */
    while (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        if (errno == ENOENT || errno == ECONNREFUSED)
            start_daemon();
        if (errno != EAGAIN || now_ms() > until)
            return -1;
        poll(NULL, 0, 5);
    }
    return fd;
}

static int ready(int fd, short event, long until)
{
    struct pollfd p = {fd, event, 0};
    long left = until - now_ms();
    int n = left > 0 ? poll(&p, 1, (int)left) : 0;
    return n > 0 || (n < 0 && errno == EINTR);
}

static int send_all(int fd, const char *data, size_t size, long until)
{
    while (size > 0) {
        ssize_t n;
        if (!ready(fd, POLLOUT, until))
            return 0;
        n = send(fd, data, size, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return 0;
        if (n > 0) {
            data += n;
            size -= (size_t)n;
        }
    }
    return 1;
}

static char *encode_environment(char *to)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:-";
    size_t i, k;
    int first = 1;
    for (i = 0; i < sizeof variables / sizeof *variables; i++) {
        const char *value = getenv(variables[i]);
        if (!value || !*value)
            continue;
        to += sprintf(to, "%s%s=", first ? "" : "&", variables[i]);
        first = 0;
        for (k = 0; value[k] && k < VALUE_MAX; k++)
            if (strchr(plain, value[k]))
                *to++ = value[k];
            else
                to += sprintf(to, "%%%02X", (unsigned char)value[k]);
    }
    return to;
}

/* rchd's answer, when it is a whole one that says something. */
static void answer(int fd, long until)
{
    size_t room = 65536, have = 0;
    char *data = malloc(room + 1), *body, *length;
    for (;;) {
        ssize_t n;
        if (!data || have > INPUT_MAX || !ready(fd, POLLIN, until))
            return;
        if (room - have < 8192)
            data = realloc(data, (room *= 2) + 1);
        if (!data)
            return;
        n = recv(fd, data + have, room - have, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    data[have] = 0;
    body = memmem(data, have, "\r\n\r\n", 4);
    if (!body || strncmp(data, "HTTP/1.1 200 ", 13) != 0)
        return;
    *body = 0;
    body += 4;
    length = strcasestr(data, "\r\ncontent-length:");
    if (!length || strtoul(length + 17, NULL, 10) != have - (size_t)(body - data) || *body != '{')
        return;
    put(body, have - (size_t)(body - data));
    _exit(0);
}

int main(int argc, char **argv)
{
    char place[256], *input, *head, *end;
    size_t size, k;
    long until;
    int fd;
    signal(SIGPIPE, SIG_IGN);
    if (argc > 1)
        agent = argv[1];
    for (k = 0; agent[k]; k++)
        if (agent[k] < 'a' || agent[k] > 'z' || k > 20)
            agent = "any";
    if (*RCH_STATE && !(getenv("RCH_STATE_DIR") && *getenv("RCH_STATE_DIR")))
        setenv("RCH_STATE_DIR", RCH_STATE, 1);
    input = read_input(&size);
    if (!input || switched_off() || !has_build_word(input, size) || !socket_place(place, sizeof place))
        silence();
    until = now_ms() + ANSWER_MS;
    fd = connect_to(place, until);
    head = malloc(1024 + sizeof variables / sizeof *variables * (64 + 3 * VALUE_MAX));
    if (fd < 0 || !head)
        silence();
    end = head + sprintf(head, "POST /hook/%s HTTP/1.1\r\nHost: rchd\r\nConnection: close\r\nX-Rch-Env: ", *agent ? agent : "any");
    end = encode_environment(end);
    end += sprintf(end, "\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", size);
    if (send_all(fd, head, (size_t)(end - head), until) && send_all(fd, input, size, until))
        answer(fd, until);
    silence();
    return 0;
}
