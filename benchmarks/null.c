/* The floor: a CVM server that knows nothing.
 *
 *     null SOCKET
 *
 * Accepts, reads to end of file, writes "success, no facts", closes.  What a request costs here is
 * the price of the kernel and of the load generator; no server can be faster.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    char request[4096];
    int listener, client;

    if (argc != 2 || strlen(argv[1]) >= sizeof address.sun_path) {
        fprintf(stderr, "usage: null SOCKET\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    strcpy(address.sun_path, argv[1]);
    listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 1024) < 0) {
        perror(argv[1]);
        return 1;
    }
    while ((client = accept(listener, NULL, NULL)) >= 0) {
        while (read(client, request, sizeof request) > 0)
            ;
        if (write(client, "\0\0", 3) != 3)
            perror("write");
        close(client);
    }
    perror("accept");
    return 1;
}
