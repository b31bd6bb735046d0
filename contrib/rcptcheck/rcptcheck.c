/* cvm-rcptcheck in C: a program that a mail server runs for each recipient.  Manual: cvm-rcptcheck(8).
 *
 *     cc -O2 -Wall -Wextra -Wpedantic -o cvm-rcptcheck rcptcheck.c
 *
 * The same as the program that the Python package installs, for hosts where starting an interpreter for each recipient
 * is too slow.  It needs nothing but libc.
 *
 * Invariants: an acceptance or a rejection comes from an answer, never from an error; a signal, the lack of memory and
 * a time-out are temporary failures, in the caller's own form.  Exactly one reply is written, and to standard output
 * only for qmail-spp.  After the start only getaddrinfo allocates memory, for cvm-udp.
 *
 * Source: notqmail pull request 233, sagredo-dev/qmail and agerstla/qmail (qmail-smtpd.c, rcptcheck; qmail-spp.c),
 * s/qmail 3.2 (recipients.c): how they interpret an exit status.  cvm 0.97 (client_xfer_local.c, v2client.c).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum outcome { ACCEPTED, MISSING, FULL, DISABLED, BLOCKED, TEMPORARY, TEMPORARY_FULL };

enum {
    PACKET_LIMIT = 512,
    VALUE_LIMIT = 255,
    NONCE = 8,
    INPUT_LIMIT = 65536, /* of descriptor 3, and of the gateway's answer */
    PAUSE = 10           /* milliseconds before another attempt, where the kernel cannot wait */
};

static const char *const replies[] = {
    [ACCEPTED] = "",
    [MISSING] = "550 5.1.1 no such mailbox",
    [FULL] = "552 5.2.2 mailbox full",
    [DISABLED] = "550 5.2.1 mailbox disabled",
    [BLOCKED] = "550 5.7.1 mailbox does not take this mail",
    [TEMPORARY] = "451 4.3.0 cannot tell now",
    [TEMPORARY_FULL] = "452 4.2.2 mailbox full",
};
static const char deny_at_data[] = "LD554 5.1.1 message refused: a recipient has no mailbox here\n";

/* The class of a rejection by its reason word; every other word is a missing mailbox.  As in reasons.py. */
static const struct {
    const char *word;
    enum outcome outcome;
} rejections[] = {
    {"over-quota", FULL},
    {"locked", DISABLED},
    {"home-not-made", DISABLED},
    {"home-denied", DISABLED},
    {"dotqmail-denied", DISABLED},
    {"service-forbidden", DISABLED},
    {"virtual-user-expired", DISABLED},
    {"virtual-user-locked", DISABLED},
    {"program-bounces", BLOCKED},
    {"bouncesaying", BLOCKED},
    {"wrong-password", BLOCKED},
    {"rejected-characters", BLOCKED},
};

struct bytes {
    const unsigned char *at;
    size_t size;
};

static enum { BY_RCPTCHECK, BY_SPP, BY_RECIPIENTS } caller;
static int has_text; /* the reply goes to descriptor 4 */
static int denies_all;
static int hears_log; /* descriptor 2 was open */
static int hears_spp; /* descriptor 1 was open */
static const char *next_program;

static int has(const char *name) {
    const char *value = getenv(name);
    return value && *value;
}

/* Replies to the server.  Only calls that are safe in a signal handler: handlers come here. ------------------------ */

static int put(int fd, const char *a, const char *b, const char *c) {
    char line[128];
    size_t size = 0;
    const char *part[3];
    part[0] = a, part[1] = b, part[2] = c;
    for (int i = 0; i < 3; i++) {
        for (const char *p = part[i]; *p && size < sizeof line; p++) line[size++] = *p;
    }
    return write(fd, line, size) == (ssize_t)size;
}

static void deaf(void);

static _Noreturn void finish(enum outcome outcome) {
    const char *reply = replies[outcome];
    int refuses = *reply == '5';
    deaf();
    switch (caller) {
    case BY_RCPTCHECK:
        if (outcome == ACCEPTED) _exit(0);
        /* Without a reader of the text, 100 would be a rejection. */
        if (has_text && put(4, reply, "\r\n", "")) _exit(100);
        _exit(refuses ? 100 : 111);
    case BY_SPP: /* it answers 451 itself to exit status 120 */
        if (outcome == ACCEPTED) _exit(0);
        if (!hears_spp) _exit(120);
        if (refuses && denies_all) _exit(put(1, deny_at_data, "", "") ? 0 : 120);
        _exit(put(1, "E", reply, "\n") ? 0 : 120);
    default:
        _exit(outcome == ACCEPTED ? 0 : refuses ? 1 : 111);
    }
}

static const int fatal_signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGABRT, SIGBUS, SIGFPE,
                                    SIGSEGV, SIGALRM, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU, SIGPIPE};

static void handle(void (*handler)(int)) {
    struct sigaction action;
    sigset_t all;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    sigfillset(&action.sa_mask);
    for (size_t i = 0; i < sizeof fatal_signals / sizeof *fatal_signals; i++) sigaction(fatal_signals[i], &action, 0);
    sigfillset(&all);
    sigprocmask(SIG_UNBLOCK, &all, 0);
}

static void deaf(void) {
    handle(SIG_IGN);
}

static void on_signal(int number) {
    (void)number;
    finish(TEMPORARY);
}

static struct iovec part(const char *text) {
    struct iovec part = {(void *)text, strlen(text)};
    return part;
}

/* Reports `what`, with a cause unless it is empty. */
static _Noreturn void fault(const char *what, const char *why) {
    struct iovec parts[] = {part("cvm-rcptcheck: "), part(what), part(*why ? ": " : ""), part(why), part("\n")};
    if (hears_log && writev(2, parts, sizeof parts / sizeof *parts) < 0) {
        /* the exit status is enough */
    }
    finish(TEMPORARY);
}

/* Time ------------------------------------------------------------------------------------------------------------- */

static long long deadline;

static long long now(void) {
    struct timespec t;
    if (clock_gettime(CLOCK_MONOTONIC, &t)) fault("clock_gettime", strerror(errno));
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

/* Waits until fd is ready or `end` is reached; returns whether fd is ready. */
static int ready(int fd, short events, long long end) {
    for (;;) {
        struct pollfd p;
        long long left = end - now();
        int n;
        if (left <= 0) return 0;
        p.fd = fd, p.events = events, p.revents = 0;
        n = poll(&p, 1, left > 3600000 ? 3600000 : (int)left);
        if (n > 0) return 1;
        if (n < 0 && errno != EINTR) fault("poll", strerror(errno));
    }
}

static void need(int fd, short events) {
    if (!ready(fd, events, deadline)) fault("no answer in time", "");
}

static void read_timeout(void) {
    const char *text = getenv("CVM_GATEWAY_TIMEOUT");
    long milliseconds = 0;
    if (!text || !*text) text = "10000";
    if (strlen(text) > 7 || strspn(text, "0123456789") != strlen(text) || (milliseconds = atol(text)) < 1)
        fault("CVM_GATEWAY_TIMEOUT: expected milliseconds from 1 to 9999999", "");
    deadline = now() + milliseconds;
    alarm((unsigned)(milliseconds / 1000) + 5); /* for calls without a time-out: the lookup of host names */
}

/* Input and output ------------------------------------------------------------------------------------------------- */

static unsigned char input[INPUT_LIMIT + 1];

/* Reads more into `input`; returns how much it has.  End of file and an error both mean that there is no more. */
static size_t read_more(int fd, size_t have, size_t limit, int *over) {
    for (;;) {
        ssize_t n;
        need(fd, POLLIN);
        n = read(fd, input + have, limit - have);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (n < 0) fault("read", strerror(errno));
        *over = n == 0;
        return have + (size_t)n;
    }
}

static void send_all(int fd, const unsigned char *at, size_t size) {
    while (size) {
        ssize_t n;
        need(fd, POLLOUT);
        n = send(fd, at, size, MSG_NOSIGNAL);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (n < 0) fault("send", strerror(errno));
        at += n, size -= (size_t)n;
    }
}

static int connect_unix(const char *path) {
    struct sockaddr_un address;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) fault("socket", strerror(errno));
    if (!*path || strlen(path) >= sizeof address.sun_path) fault("not the path of a socket", path);
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, path, strlen(path));
    while (connect(fd, (struct sockaddr *)&address, sizeof address)) {
        if (errno == EINTR) continue;
        if (errno != EAGAIN) fault(path, strerror(errno));
        if (now() >= deadline) fault("no answer in time", "");
        poll(0, 0, PAUSE); /* the server's queue is full, for which a Unix socket cannot wait */
    }
    return fd;
}

/* The recipient ---------------------------------------------------------------------------------------------------- */

static struct bytes recipient(void) {
    static unsigned char address[INPUT_LIMIT];
    struct bytes found = {address, 0};
    size_t have = 0;
    int over = 0;
    const char *text = caller == BY_RCPTCHECK ? getenv("RECIPIENT") : caller == BY_SPP ? getenv("SMTPRCPTTO") : 0;
    const unsigned char *end;
    if (text) {
        found.at = (const unsigned char *)text, found.size = strlen(text);
        return found;
    }
    if (fcntl(3, F_GETFL) < 0)
        fault("no mail server is known that calls so: RECIPIENT and SMTPRCPTTO are not set; descriptor 3",
              strerror(errno));
    while (!memchr(input, 0, have)) {
        if (over || have == INPUT_LIMIT) fault("descriptor 3: expected an address that ends with a zero byte", "");
        have = read_more(3, have, INPUT_LIMIT, &over);
    }
    end = memchr(input, 0, have);
    found.size = (size_t)(end - input);
    memcpy(address, input, found.size);
    return found;
}

/* A CVM module ----------------------------------------------------------------------------------------------------- */

static unsigned char packet[PACKET_LIMIT];
static size_t packed;

static void pack(int kind, const unsigned char *at, size_t size) {
    if (size > VALUE_LIMIT || packed + size + 3 > PACKET_LIMIT) fault("an address that is too long to ask for", "");
    packet[packed++] = (unsigned char)kind;
    packet[packed++] = (unsigned char)size;
    if (size) memcpy(packet + packed, at, size);
    packed += size;
}

/* An empty credential 240 asks for the reason; a server without it ignores it. */
static void pack_request(struct bytes address, size_t nonce) {
    const char *secret = getenv("CVM_LOOKUP_SECRET");
    const unsigned char *at = memrchr(address.at, '@', address.size);
    size_t account = at ? (size_t)(at - address.at) : address.size;
    packed = 0;
    packet[packed++] = 2;
    packet[packed++] = (unsigned char)nonce;
    if (nonce && getrandom(packet + packed, nonce, 0) != (ssize_t)nonce) fault("getrandom", strerror(errno));
    packed += nonce;
    pack(1, address.at, account);
    if (at) pack(2, at + 1, address.size - account - 1);
    if (secret && *secret) pack(4, (const unsigned char *)secret, strlen(secret));
    pack(240, 0, 0);
    packet[packed++] = 0;
}

static size_t ask_unix(const char *path) {
    int fd = connect_unix(path), over = 0;
    size_t have = 0;
    send_all(fd, packet, packed);
    if (shutdown(fd, SHUT_WR)) fault("shutdown", strerror(errno));
    while (!over && have <= PACKET_LIMIT) have = read_more(fd, have, PACKET_LIMIT + 1, &over);
    return have;
}

static int connect_udp(const char *place) {
    static char host[256];
    const char *colon = strrchr(place, ':');
    struct addrinfo hints, *found = 0;
    size_t size = colon ? (size_t)(colon - place) : sizeof host;
    int fd, error;
    if (size >= sizeof host) fault("CVM_LOOKUP: expected cvm-udp:HOST:PORT", "");
    if (size > 1 && place[0] == '[' && place[size - 1] == ']') place++, size -= 2;
    memcpy(host, place, size);
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_DGRAM;
    error = getaddrinfo(host, colon + 1, &hints, &found);
    if (error) fault("CVM_LOOKUP", gai_strerror(error));
    fd = socket(found->ai_family, found->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, found->ai_protocol);
    if (fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen)) fault("CVM_LOOKUP", strerror(errno));
    freeaddrinfo(found);
    return fd;
}

static size_t ask_udp(const char *place) {
    static const int tries[] = {1000, 2000, 4000, 3600000};
    int fd = connect_udp(place);
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        long long end = now() + tries[i];
        if (end > deadline) end = deadline;
        if (send(fd, packet, packed, MSG_NOSIGNAL) < 0) fault("send", strerror(errno));
        while (ready(fd, POLLIN, end)) {
            ssize_t n = recv(fd, input, PACKET_LIMIT + 1, 0);
            if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
            if (n < 0) fault("recv", strerror(errno));
            if (n >= 2 + NONCE && !memcmp(input + 1, packet + 1, 1 + NONCE)) return (size_t)n; /* else an old one */
        }
        if (now() >= deadline) break;
    }
    fault("no answer in time", "");
}

static int is(struct bytes value, const char *text) {
    return value.at && value.size == strlen(text) && !memcmp(value.at, text, value.size);
}

static enum outcome rejection_of(struct bytes reason) {
    for (size_t i = 0; i < sizeof rejections / sizeof *rejections; i++)
        if (is(reason, rejections[i].word)) return rejections[i].outcome;
    return MISSING;
}

/* Whether the fact of a 100 means out of scope: digits, and not all of them zero. */
static int out_of_scope(struct bytes scope) {
    int positive = 0;
    for (size_t i = 0; i < scope.size; i++) {
        if (scope.at[i] < '0' || scope.at[i] > '9') fault("out of scope: expected 0 or 1", "");
        positive |= scope.at[i] != '0';
    }
    if (!positive) fault("out of scope: expected 0 or 1", "");
    return 1;
}

/* The outcome of a response.  One that is not complete and well-formed is a temporary failure. */
static enum outcome judge(size_t size, size_t nonce) {
    struct bytes facts[256];
    size_t at = 2 + nonce;
    enum outcome rejection;
    if (!size) fault("no answer", "");
    if (size > PACKET_LIMIT || size < 3 + nonce || input[1] != nonce || memcmp(input + 2, packet + 2, nonce))
        fault("not the answer of a CVM module", "");
    memset(facts, 0, sizeof facts);
    while (input[at]) {
        if (at + 2 >= size || at + 2 + input[at + 1] >= size) fault("an answer that is cut short", "");
        facts[input[at]].at = input + at + 2;
        facts[input[at]].size = input[at + 1];
        at += 2 + (size_t)input[at + 1];
    }
    if (at + 1 != size) fault("bytes after the end of the answer", "");
    rejection = rejection_of(facts[240]);
    if (input[0] == 0 && facts[1].at && facts[2].at && facts[3].at && facts[5].at) return ACCEPTED;
    if (input[0] == 100) {
        if (!facts[16].at || is(facts[16], "0")) return rejection;
        return out_of_scope(facts[16]) ? ACCEPTED : TEMPORARY; /* the server's own rules decide */
    }
    if (input[0] == 7) fault("the module requires a different CVM_LOOKUP_SECRET", "");
    return input[0] != 0 && input[0] != 2 && input[0] != 3 && rejection == FULL ? TEMPORARY_FULL : TEMPORARY;
}

static enum outcome ask_module(const char *module, struct bytes address) {
    if (!strncmp(module, "cvm-local:", 10)) {
        pack_request(address, 0);
        return judge(ask_unix(module + 10), 0);
    }
    if (!strncmp(module, "cvm-udp:", 8)) {
        pack_request(address, NONCE);
        return judge(ask_udp(module + 8), NONCE);
    }
    fault("CVM_LOOKUP: expected cvm-local:PATH or cvm-udp:HOST:PORT, found", module);
}

/* The gateway's policy listener ------------------------------------------------------------------------------------ */

static void send_attribute(int fd, const char *name, const char *const *variables) {
    for (; *variables; variables++) {
        const char *value = getenv(*variables);
        if (!value || strchr(value, '\n')) continue;
        send_all(fd, (const unsigned char *)name, strlen(name));
        send_all(fd, (const unsigned char *)value, strlen(value));
        send_all(fd, (const unsigned char *)"\n", 1);
        return;
    }
}

/* The value of the first line NAME=... of an answer, cut off there; NULL without one. */
static char *attribute(char *block, const char *name) {
    size_t size = strlen(name);
    for (char *line = block; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : 0)
        if (!strncmp(line, name, size) && line[size] == '=') return line + size + 1;
    return 0;
}

static void cut_at(char *text, const char *stop) {
    if (text) text[strcspn(text, stop)] = 0;
}

static enum outcome policy_outcome(char *block) {
    char *action = attribute(block, "action"), *outcome = attribute(block, "outcome"), *status;
    cut_at(action, "\n"), cut_at(outcome, "\n");
    if (action) action += strspn(action, " \t");
    if (!action || !*action) fault("not the answer of a policy service", "");
    status = action + strcspn(action, " \t");
    status += strspn(status, " \t");
    cut_at(action, " \t"), cut_at(status, " \t");
    if (!strcasecmp(action, "dunno") && (!outcome || !strcmp(outcome, "accepted") || !strcmp(outcome, "out_of_scope")))
        return ACCEPTED;
    if (outcome && strcmp(outcome, "rejected") && strcmp(outcome, "temporary_failure"))
        fault("an action and an outcome that contradict each other", "");
    if (*action == '5' && strspn(action, "0123456789") == 3 && !action[3] && !(outcome && !strcmp(outcome, "temporary_failure"))) {
        if (!strcmp(status, "5.2.2")) return FULL;
        if (!strcmp(status, "5.2.1")) return DISABLED;
        return strcmp(status, "5.7.1") ? MISSING : BLOCKED;
    }
    return !strcmp(status, "4.2.2") && (!outcome || strcmp(outcome, "rejected")) ? TEMPORARY_FULL : TEMPORARY;
}

static enum outcome ask_gateway(const char *gateway, struct bytes address) {
    static const char *const sender[] = {"SENDER", "SMTPMAILFROM", "MAILFROM", 0};
    static const char *const client[] = {"TCPREMOTEIP", 0};
    static const char *const helo[] = {"HELO", "SMTPHELOHOST", "HELOHOST", 0};
    static const char start[] = "request=smtpd_access_policy\nprotocol_state=RCPT\nrecipient=";
    unsigned char *end;
    size_t have = 0;
    int fd, over = 0;
    if (strncmp(gateway, "unix:", 5)) fault("CVM_GATEWAY: expected unix:PATH, found", gateway);
    if (memchr(address.at, '\n', address.size)) fault("an address with a newline in it cannot be asked for", "");
    fd = connect_unix(gateway + 5);
    send_all(fd, (const unsigned char *)start, sizeof start - 1);
    send_all(fd, address.at, address.size);
    send_all(fd, (const unsigned char *)"\n", 1);
    send_attribute(fd, "sender=", sender);
    send_attribute(fd, "client_address=", client);
    send_attribute(fd, "helo_name=", helo);
    send_all(fd, (const unsigned char *)"\n", 1);
    while (!(end = memmem(input, have, "\n\n", 2))) {
        if (over || have == INPUT_LIMIT) fault(have ? "not the answer of a policy service" : "no answer", "");
        have = read_more(fd, have, INPUT_LIMIT, &over);
    }
    if (memchr(input, 0, (size_t)(end - input))) fault("a zero byte in the answer of a policy service", "");
    *end = 0;
    return policy_outcome((char *)input);
}

/* ------------------------------------------------------------------------------------------------------------------ */

/* A descriptor that the caller closed must not be reused for a socket that is then written to as the log. */
static void hold_standard_descriptors(void) {
    int fd;
    while ((fd = open("/dev/null", O_RDWR)) >= 0 && fd <= 2) continue;
    if (fd < 0) finish(TEMPORARY);
    close(fd);
}

static void find_caller(void) {
    struct stat st;
    caller = getenv("RECIPIENT") ? BY_RCPTCHECK : getenv("SMTPRCPTTO") ? BY_SPP : BY_RECIPIENTS;
    has_text = has("USE_FD4") && !fstat(4, &st) && S_ISFIFO(st.st_mode);
    denies_all = has("CVM_GATEWAY_DENY_ALL") && !strcmp(getenv("CVM_GATEWAY_DENY_ALL"), "1");
    next_program = caller == BY_RCPTCHECK && has("CVM_RCPTCHECK_NEXT") ? getenv("CVM_RCPTCHECK_NEXT") : 0;
}

/* qmail-spp asks about other hosts' domains and about relay clients too. */
static int not_ours_to_judge(void) {
    const char *ok = getenv("SMTPRCPTHOSTSOK"), *relay = getenv("CVM_RCPTCHECK_RELAYCLIENT");
    if (caller != BY_SPP) return 0;
    return (ok && !strcmp(ok, "0")) || (getenv("RELAYCLIENT") && (!relay || !*relay || !strcmp(relay, "0")));
}

static _Noreturn void run_next(void) {
    handle(SIG_DFL);
    alarm(0);
    execl(next_program, next_program, (char *)0);
    fault(next_program, strerror(errno));
}

int main(void) {
    struct bytes address;
    enum outcome outcome;
    hears_log = fcntl(2, F_GETFL) >= 0;
    hears_spp = fcntl(1, F_GETFL) >= 0;
    find_caller();
    handle(on_signal);
    hold_standard_descriptors();
    read_timeout();
    if (not_ours_to_judge()) finish(ACCEPTED);
    address = recipient();
    if (has("CVM_GATEWAY"))
        outcome = ask_gateway(getenv("CVM_GATEWAY"), address);
    else if (has("CVM_LOOKUP"))
        outcome = ask_module(getenv("CVM_LOOKUP"), address);
    else
        fault("neither CVM_GATEWAY nor CVM_LOOKUP is set: expected CVM_LOOKUP=cvm-local:PATH or the like", "");
    if (outcome == ACCEPTED && next_program) run_next();
    finish(outcome);
}
