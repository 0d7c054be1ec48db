/* The floor in C: floor [FRAME_FILE OFFSET_OF_NUMBER CALL_SIZE]
 *
 * One non-blocking send() of a ready frame for each delivery, and nothing else; to a caller its bytes are sent back.
 * peers/floor_server.py is its twin in Python. Prints its port, serves until standard input ends. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_FDS 65536
#define NUMBER_WIDTH 10

enum kind { UNUSED, OPENING, SUBSCRIBER, CONTROLLER, CALLER };

static const char ANSWER[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";

static enum kind kinds[MAX_FDS];
static int subscribers[MAX_FDS];
static int subscriber_count;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void watch(int epoll, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
        die("epoll_ctl");
}

static void send_all(int fd, const char *data, size_t size) {
    size_t sent = 0;
    while (sent < size) {
        ssize_t n = send(fd, data + sent, size - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n >= 0) {
            sent += n;
        } else if (errno == EAGAIN) { /* does not happen while the load keeps up */
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            poll(&wait, 1, -1);
        } else {
            exit(0); /* the load has gone */
        }
    }
}

static void emit(const char *frame, size_t size) {
    for (int i = 0; i < subscriber_count; i++)
        send_all(subscribers[i], frame, size);
}

/* Requests are small and come alone on their connection: one read has the whole of it. */
static void open_connection(int fd, const char *request, ssize_t size) {
    if (size < 4 || memcmp(request + size - 4, "\r\n\r\n", 4))
        exit(1);
    if (memmem(request, size, "/subscriber ", 12)) {
        kinds[fd] = SUBSCRIBER;
        subscribers[subscriber_count++] = fd;
    } else if (memmem(request, size, "/caller ", 8)) {
        kinds[fd] = CALLER;
    } else {
        kinds[fd] = CONTROLLER;
    }
    if (send(fd, ANSWER, sizeof ANSWER - 1, MSG_NOSIGNAL) < 0)
        exit(0);
}

int main(int argc, char **argv) {
    static char frame[1 << 20];
    size_t frame_size = 0, offset = 0, call_size = 1, called = 0;
    if (argc == 4) {
        FILE *file = fopen(argv[1], "rb");
        if (!file)
            die(argv[1]);
        frame_size = fread(frame, 1, sizeof frame, file);
        offset = atoi(argv[2]), call_size = atoi(argv[3]);
    }
    long emitted = 0;

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, 4096))
        die("listen");
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);

    int epoll = epoll_create1(0);
    watch(epoll, listener);
    watch(epoll, STDIN_FILENO);
    static char buffer[65536];
    for (;;) {
        struct epoll_event events[256];
        int count = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == STDIN_FILENO)
                return 0;
            if (fd == listener) {
                int accepted = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (accepted < 0)
                    continue;
                if (accepted >= MAX_FDS)
                    return 1;
                setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                kinds[accepted] = OPENING;
                watch(epoll, accepted);
                continue;
            }
            ssize_t size = recv(fd, buffer, sizeof buffer, 0);
            if (size < 0 && errno == EAGAIN)
                continue;
            if (size <= 0) {
                if (kinds[fd] != CALLER)
                    return 0; /* the load has gone */
                close(fd);
                continue;
            }
            if (kinds[fd] == OPENING) {
                open_connection(fd, buffer, size);
            } else if (kinds[fd] == CALLER) {
                send_all(fd, buffer, size);
            } else {
                for (called += size; called >= call_size; called -= call_size) {
                    char digits[NUMBER_WIDTH + 12];
                    snprintf(digits, sizeof digits, "%010ld", emitted++);
                    memcpy(frame + offset, digits, NUMBER_WIDTH);
                    emit(frame, frame_size);
                }
            }
        }
    }
}
