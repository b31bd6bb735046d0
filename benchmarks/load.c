/* Load for a CVM server on a Unix socket.
 *
 *     load [-c CLIENTS] [-t SECONDS | -n COUNT] [-s SILENT] [-g GRACE] SOCKET PACKETS
 *
 * CLIENTS processes (default 1) send the requests in PACKETS, over and over, for SECONDS (default 1)
 * or until COUNT are done.  A request is one connection: connect, write, shut down the sending side,
 * read to end of file, close.  No system call more than that, so that the server is what is measured.
 *
 * PACKETS holds, for each request: the code that the response must begin with (one byte), the length
 * of the packet (two bytes, the low one first), the packet.
 *
 * With -s, a further process holds SILENT connections that never send anything.  One that the server
 * closes is opened again at once: there are SILENT of them all the time.
 *
 * A client that gets no answer for GRACE seconds (default 10) after everybody should have finished is
 * given up, and counted as stuck.
 *
 * Prints one line:
 *     done=REQUESTS elapsed=SECONDS rate=REQUESTS/SECOND wrong=N stuck=N silent=N reopened=N
 * wrong: connections that failed, and responses with another code than the expected one.  The first of
 * each client is explained on standard error.  Exit status: 0, also with wrong ones; 2 for wrong usage.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_CLIENTS = 256, MOST_SILENT = 4096 };

struct packet {
    const unsigned char *bytes;
    unsigned length;
    unsigned char code;
};

/* What one client reports to the parent; a cache line of its own. */
struct tally {
    _Alignas(64) atomic_long done;
    atomic_long wrong;
    _Atomic double ended;
};

struct shared {
    struct tally tally[MOST_CLIENTS];
    atomic_int go;
    atomic_int silent;
    atomic_long reopened;
};

static struct sockaddr_un address = { .sun_family = AF_UNIX };
static struct packet *packets;
static long packet_count;
static struct shared *shared;

static void die(const char *what)
{
    perror(what);
    exit(2);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void pause_ms(long ms)
{
    struct timespec t = { ms / 1000, ms % 1000 * 1000000 };
    nanosleep(&t, NULL);
}

static void read_packets(const char *name)
{
    struct stat st;
    int fd = open(name, O_RDONLY);
    const unsigned char *at, *end;
    long room = 0;

    if (fd < 0 || fstat(fd, &st) < 0)
        die(name);
    if (!st.st_size) {
        fprintf(stderr, "%s: empty\n", name);
        exit(2);
    }
    at = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (at == MAP_FAILED)
        die(name);
    for (end = at + st.st_size; at < end; packet_count++) {
        if (packet_count == room) {
            room = room ? room * 2 : 1024;
            packets = realloc(packets, room * sizeof *packets);
            if (!packets)
                die("realloc");
        }
        if (end - at < 3 || end - at - 3 < at[1] + 256 * at[2]) {
            fprintf(stderr, "%s: cut short\n", name);
            exit(2);
        }
        packets[packet_count] = (struct packet){ at + 3, at[1] + 256 * at[2], at[0] };
        at += 3 + packets[packet_count].length;
    }
}

/* One request; the code of its response, or -1 with errno (0: closed without an answer). */
static int ask(const struct packet *packet)
{
    unsigned char answer[1024];
    ssize_t got, total = 0;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    if (fd < 0)
        return -1;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0
        || write(fd, packet->bytes, packet->length) != (ssize_t)packet->length || shutdown(fd, SHUT_WR) < 0) {
        close(fd);
        return -1;
    }
    while ((got = read(fd, answer + total, sizeof answer - total)) > 0)
        total += got;
    close(fd);
    if (got < 0)
        return -1;
    errno = 0;
    return total > 1 ? answer[0] : -1;
}

static void client(int me, int clients, double seconds, long count)
{
    struct tally *tally = &shared->tally[me];
    double end;
    long i, done = 0, wrong = 0;

    while (!atomic_load(&shared->go))
        pause_ms(1);
    end = now() + seconds;
    for (i = me; count ? i < count : now() < end; i += clients) {
        const struct packet *packet = &packets[i % packet_count];
        int code = ask(packet);
        if (code != packet->code) {
            if (!wrong)
                fprintf(stderr, "packet %ld: got %d (%s), expected %d\n", i % packet_count, code, strerror(errno),
                        packet->code);
            atomic_store_explicit(&tally->wrong, ++wrong, memory_order_relaxed);
        }
        atomic_store_explicit(&tally->done, ++done, memory_order_relaxed);
    }
    tally->ended = now();
    exit(0);
}

static int connected(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("a silent client");
    return fd;
}

static void be_silent(int silent)
{
    static struct pollfd held[MOST_SILENT];
    char answer[1024];
    int i;

    for (i = 0; i < silent; i++) {
        held[i] = (struct pollfd){ connected(), POLLIN, 0 };
        atomic_fetch_add(&shared->silent, 1);
    }
    while (poll(held, silent, -1) > 0)
        for (i = 0; i < silent; i++)
            if (held[i].revents && read(held[i].fd, answer, sizeof answer) <= 0) {
                close(held[i].fd);
                held[i].fd = connected();
                atomic_fetch_add(&shared->reopened, 1);
            }
    exit(2);
}

/* A child that dies with us, and does nothing before `go`. */
static pid_t child(void)
{
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (!pid)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return pid;
}

static long sum_done(int clients)
{
    long sum = 0;
    for (int i = 0; i < clients; i++)
        sum += atomic_load(&shared->tally[i].done);
    return sum;
}

/* Waits until every client has ended, or none gets on any more; how many had to be given up. */
static int wait_for(pid_t *pids, int clients, double end, double grace)
{
    int left = clients;
    long done = -1;
    double moved = now();

    while (left) {
        for (int i = 0; i < clients; i++)
            if (pids[i] && waitpid(pids[i], NULL, WNOHANG) == pids[i]) {
                pids[i] = 0;
                left--;
            }
        if (sum_done(clients) != done) {
            done = sum_done(clients);
            moved = now();
        }
        if (now() > (moved > end ? moved : end) + grace)
            break;
        if (left)
            pause_ms(2);
    }
    for (int i = 0; i < clients; i++)
        if (pids[i]) {
            kill(pids[i], SIGKILL);
            waitpid(pids[i], NULL, 0);
        }
    return left;
}

static void usage(void)
{
    fprintf(stderr, "usage: load [-c CLIENTS] [-t SECONDS | -n COUNT] [-s SILENT] [-g GRACE] SOCKET PACKETS\n");
    exit(2);
}

int main(int argc, char **argv)
{
    int option, clients = 1, silent = 0, stuck;
    long count = 0, done, wrong = 0;
    double seconds = 1, grace = 10, began, ended = 0;
    pid_t pids[MOST_CLIENTS], holder = 0;

    while ((option = getopt(argc, argv, "c:t:n:s:g:")) != -1)
        switch (option) {
        case 'c': clients = atoi(optarg); break;
        case 't': seconds = atof(optarg); break;
        case 'n': count = atol(optarg); break;
        case 's': silent = atoi(optarg); break;
        case 'g': grace = atof(optarg); break;
        default: usage();
        }
    if (argc - optind != 2 || clients < 1 || clients > MOST_CLIENTS || silent < 0 || silent > MOST_SILENT
        || strlen(argv[optind]) >= sizeof address.sun_path)
        usage();
    strcpy(address.sun_path, argv[optind]);
    read_packets(argv[optind + 1]);
    signal(SIGPIPE, SIG_IGN);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        die("mmap");

    if (silent && !(holder = child()))
        be_silent(silent);
    for (began = now(); atomic_load(&shared->silent) < silent && now() < began + 2;)
        pause_ms(1);
    for (int i = 0; i < clients; i++)
        if (!(pids[i] = child()))
            client(i, clients, seconds, count);
    pause_ms(10);
    began = now();
    atomic_store(&shared->go, 1);
    if (!count)
        pause_ms(seconds * 1000);
    stuck = wait_for(pids, clients, count ? began : began + seconds, grace);
    if (holder) {
        kill(holder, SIGKILL);
        waitpid(holder, NULL, 0);
    }

    done = sum_done(clients);
    for (int i = 0; i < clients; i++) {
        wrong += atomic_load(&shared->tally[i].wrong);
        if (shared->tally[i].ended > ended)
            ended = shared->tally[i].ended;
    }
    if (stuck)
        ended = now();
    printf("done=%ld elapsed=%.6f rate=%.1f wrong=%ld stuck=%d silent=%d reopened=%ld\n", done, ended - began,
           done / (ended - began), wrong, stuck, atomic_load(&shared->silent), atomic_load(&shared->reopened));
    return 0;
}
