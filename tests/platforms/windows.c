/* Do our headers do on Winsock what they promise? make wine runs this under Wine.
 *
 * Wine's WSAPoll is that of today's Windows, which reports a failed connect(). The older one is
 * put on it: then only what else is asked can tell.
 */
#include <stdio.h>
#include <string.h>
#include <winsock2.h>

static int is_old;           /* before Windows 10 2004 */
static int is_strict;        /* refuses an array in which one of the sockets is closed */

static int WSAAPI
windows_poll(WSAPOLLFD *watched, ULONG count, INT timeout_ms)
{
    ULONG i;
    int n = 0;
    for (i = 0; is_strict && i < count; i++) {
        int type, size = sizeof type;
        if (getsockopt(watched[i].fd, SOL_SOCKET, SO_TYPE, (char *)&type, &size) != 0)
            return WSASetLastError(WSAENOTSOCK), SOCKET_ERROR;
    }
    n = WSAPoll(watched, count, timeout_ms);
    for (i = 0; is_old && n >= 0 && i < count; i++) {
        struct sockaddr_storage peer;
        int size = sizeof peer;
        if ((watched[i].revents & POLLERR)
                && getpeername(watched[i].fd, (struct sockaddr *)&peer, &size) != 0) {
            watched[i].revents = 0;
            n--;
        }
    }
    return n;
}

#define WSAPoll windows_poll
#include "cancel_thread.h"
#include "clock.h"
#include "readiness.h"
#include "readiness_set.h"
#include "spin.h"
#undef WSAPoll

#define MS 1000000LL
#define SLICE_MS 100
#define LONGEST_MS 60000 /* of everything */

static int passed, failed;

static void
check(int holds, int line, const char *what, long long found)
{
    if (holds)
        passed++;
    else {
        failed++;
        printf("FAILED  line %d: %s: %lld\n", line, what, found);
    }
}

#define EQUAL(found, expected) \
    do { \
        long long found_ = (found); \
        check(found_ == (expected), __LINE__, #found " == " #expected, found_); \
    } while (0)
#define ABOVE(found, least) \
    do { \
        long long found_ = (found); \
        check(found_ > (least), __LINE__, #found " > " #least, found_); \
    } while (0)
/* The statement takes so long: not less, and not much more, on a busy machine. */
#define TAKES(least_ms, statement) \
    do { \
        int64_t took_ = monotonic_ns(); \
        statement; \
        took_ = (monotonic_ns() - took_) / MS; \
        check((least_ms) - 20 <= took_ && took_ < (least_ms) + 1500, __LINE__, \
            #statement " takes " #least_ms " ms", took_); \
    } while (0)

static DWORD WINAPI
end_of_time(void *unused)
{
    (void)unused;
    Sleep(LONGEST_MS);
    printf("FAILED  it hangs\n");
    fflush(stdout);
    ExitProcess(2);
}

/* -- Sockets */

static SOCKET
listen_at(struct sockaddr_in *address, int backlog)
{
    SOCKET listener = socket(AF_INET, SOCK_STREAM, 0);
    int size = sizeof *address;
    memset(address, 0, sizeof *address);
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)address, size) != 0 || listen(listener, backlog) != 0
            || getsockname(listener, (struct sockaddr *)address, &size) != 0) {
        printf("FAILED  no socket to listen on: %d\n", WSAGetLastError());
        ExitProcess(2);
    }
    return listener;
}

static int
begin_to_connect(const struct sockaddr_in *address)
{
    SOCKET attempt = socket(AF_INET, SOCK_STREAM, 0);
    u_long is_nonblocking = 1;
    (void)ioctlsocket(attempt, FIONBIO, &is_nonblocking);
    (void)connect(attempt, (const struct sockaddr *)address, sizeof *address);
    return (int)attempt;
}

static int
refused(void)
{
    struct sockaddr_in address;
    closesocket(listen_at(&address, 1));
    return begin_to_connect(&address);
}

static void
make_pair(int pair[2])
{
    struct sockaddr_in address;
    SOCKET listener = listen_at(&address, 1);
    pair[0] = begin_to_connect(&address);
    pair[1] = (int)accept(listener, NULL, NULL);
    closesocket(listener);
}

static void
close_pair(int pair[2])
{
    closesocket(pair[0]);
    closesocket(pair[1]);
}

struct later {
    int fd;
    int after_ms;
    int closes; /* or else writes to it */
};

static DWORD WINAPI
do_later(void *argument)
{
    struct later *later = argument;
    Sleep(later->after_ms);
    if (later->closes)
        closesocket(later->fd);
    else
        send(later->fd, "x", 1, 0);
    return 0;
}

static HANDLE
start_thread(struct later *later)
{
    return CreateThread(NULL, 0, do_later, later, 0, NULL);
}

static void
join(HANDLE thread)
{
    (void)WaitForSingleObject(thread, INFINITE);
    (void)CloseHandle(thread);
}

/* -- One descriptor */

static int
sleep_for(int fd, int events, int slice_ms, int left_ms)
{
    int no_ticker = -1;
    return readiness_poll(fd, events, slice_ms, left_ms, &no_ticker);
}

static void
test_one(void)
{
    char byte;
    int pair[2], rc = 0;
    struct later later;
    HANDLE thread;

    make_pair(pair);
    EQUAL(readiness_check(pair[0]), 0);
    TAKES(SLICE_MS, rc = sleep_for(pair[0], READINESS_READ, SLICE_MS, -1));
    EQUAL(rc, 0);
    TAKES(50, rc = sleep_for(pair[0], READINESS_READ, 5000, 50)); /* a deadline */
    EQUAL(rc, 0);
    TAKES(0, rc = sleep_for(pair[0], READINESS_READ, 5000, 0));
    EQUAL(rc, 0);
    ABOVE(sleep_for(pair[0], READINESS_WRITE, 5000, -1), 0);
    ABOVE(sleep_for(pair[0], READINESS_READ | READINESS_WRITE, 5000, -1), 0);

    later = (struct later){pair[1], 100, 0};
    thread = start_thread(&later);
    TAKES(100, rc = sleep_for(pair[0], READINESS_READ, 5000, -1));
    ABOVE(rc, 0);
    join(thread);
    EQUAL(recv(pair[0], &byte, 1, 0), 1);
    EQUAL(sleep_for(pair[0], READINESS_READ, 0, -1), 0);

    closesocket(pair[1]); /* the peer hangs up */
    ABOVE(sleep_for(pair[0], READINESS_READ, 5000, -1), 0);
    closesocket(pair[0]);
    TAKES(0, rc = sleep_for(pair[0], READINESS_READ, 5000, -1));
    EQUAL(rc, -EBADF);
    EQUAL(readiness_check(pair[0]), -EBADF);
    EQUAL(sleep_for(-1, READINESS_READ, 5000, -1), -EBADF);

    make_pair(pair);
    later = (struct later){pair[0], 100, 1};
    thread = start_thread(&later); /* closed under the wait: at the latest when the slice is over */
    rc = sleep_for(pair[0], READINESS_READ, 1000, -1);
    EQUAL(rc == 0 ? sleep_for(pair[0], READINESS_READ, 1000, -1) : rc, -EBADF);
    join(thread);
    closesocket(pair[1]);
}

static int
wait_refused(int fd, int slices)
{
    int rc = 0;
    while (rc == 0 && slices-- > 0)
        rc = sleep_for(fd, READINESS_WRITE, SLICE_MS, -1);
    return rc;
}

static void
test_connect(void)
{
    struct sockaddr_in address;
    SOCKET listener;
    int fd, rc = 0, error = 0, size = sizeof error, i;
    int attempts[8];

    fd = refused();
    ABOVE(wait_refused(fd, 40), 0);
    EQUAL(getsockopt(fd, SOL_SOCKET, SO_ERROR, (char *)&error, &size), 0);
    EQUAL(error, WSAECONNREFUSED); /* libpq is told, who asks for the first time */
    closesocket(fd);

    listener = listen_at(&address, 1);
    fd = begin_to_connect(&address);
    ABOVE(sleep_for(fd, READINESS_WRITE, 5000, -1), 0);
    EQUAL(readiness_has_failed(fd), 0);
    closesocket(fd);
    closesocket(listener);

    /* Nobody accepts: at some time an attempt gets no answer. */
    listener = listen_at(&address, 1);
    for (i = 0; i < 8; i++) {
        attempts[i] = begin_to_connect(&address);
        rc = sleep_for(attempts[i], READINESS_WRITE, 300, -1);
        if (rc == 0)
            break;
    }
    EQUAL(rc, 0);
    if (rc == 0) {
        EQUAL(readiness_has_failed(attempts[i]), 0);
        TAKES(SLICE_MS, rc = sleep_for(attempts[i], READINESS_WRITE, SLICE_MS, -1));
        EQUAL(rc, 0);
    }
    for (; i >= 0; i--)
        if (i < 8)
            closesocket(attempts[i]);
    closesocket(listener);
}

/* -- Many */

#define PAIRS 200

static readiness_t ready[PAIRS];

static void
test_set(void)
{
    readiness_set_t set;
    int pairs[PAIRS][2], seen[PAIRS] = {0};
    int i, n = 0, fd, count;
    struct later later;
    HANDLE thread;

    EQUAL(readiness_set_open(&set), 0);
    EQUAL(readiness_set_fileno(&set), -1);
    TAKES(0, n = readiness_set_wait(&set, ready, PAIRS, 0)); /* before the first descriptor */
    EQUAL(n, 0);
    TAKES(SLICE_MS, n = readiness_set_wait(&set, ready, PAIRS, SLICE_MS));
    EQUAL(n, 0);

    make_pair(pairs[0]);
    make_pair(pairs[1]);
    EQUAL(readiness_set_watch(&set, pairs[0][0], READINESS_READ, 7), 0);
    EQUAL(readiness_set_watch(&set, pairs[1][0], READINESS_READ, 8), 0);
    TAKES(SLICE_MS, n = readiness_set_wait(&set, ready, PAIRS, SLICE_MS));
    EQUAL(n, 0);
    later = (struct later){pairs[1][1], 100, 0}; /* as another thread's wake-up does */
    thread = start_thread(&later);
    TAKES(100, n = readiness_set_wait(&set, ready, PAIRS, 5000));
    join(thread);
    EQUAL(n, 1);
    EQUAL(ready[0].generation, 8);
    EQUAL(ready[0].fd, pairs[1][0]);
    ABOVE(ready[0].revents, 0);

    closesocket(pairs[0][0]); /* one is closed, the other one ready */
    for (i = 0, n = 0; i < 2 && n < 2; i++) {
        count = readiness_set_wait(&set, ready + n, PAIRS - n, 5000);
        ABOVE(count, 0);
        n += count > 0 ? count : 0;
        if (ready[0].generation == 7)
            readiness_set_forget(&set, pairs[0][0]);
    }
    EQUAL(n, 2);
    for (i = 0; i < n; i++)
        if (ready[i].generation == 7)
            EQUAL(ready[i].revents, -EBADF);
        else
            ABOVE(ready[i].revents, 0);
    EQUAL(ready[0].generation + ready[1].generation, 15);

    readiness_set_forget(&set, pairs[0][0]);
    closesocket(pairs[1][0]); /* now all are */
    TAKES(0, n = readiness_set_wait(&set, ready, PAIRS, 5000));
    EQUAL(n, 1);
    EQUAL(ready[0].generation, 8);
    EQUAL(ready[0].revents, -EBADF);
    readiness_set_forget(&set, pairs[1][0]);
    TAKES(SLICE_MS, n = readiness_set_wait(&set, ready, PAIRS, SLICE_MS)); /* empty again */
    EQUAL(n, 0);
    closesocket(pairs[0][1]);
    closesocket(pairs[1][1]);

    make_pair(pairs[0]);
    EQUAL(readiness_set_watch(&set, pairs[0][0], READINESS_READ, 9), 0);
    fd = refused();
    EQUAL(readiness_set_watch(&set, fd, READINESS_WRITE, 10), 0);
    for (i = 0, n = 0; n == 0 && i < 40; i++)
        n = readiness_set_wait(&set, ready, PAIRS, SLICE_MS);
    EQUAL(n, 1);
    EQUAL(ready[0].generation, 10);
    ABOVE(ready[0].revents, 0);
    readiness_set_forget(&set, fd);
    closesocket(fd);

    later = (struct later){pairs[0][0], 100, 1};
    thread = start_thread(&later); /* closed under the wait: at the latest with the next one */
    for (i = 0, n = 0; n == 0 && i < 2; i++)
        n = readiness_set_wait(&set, ready, PAIRS, 500);
    join(thread);
    EQUAL(n, 1);
    EQUAL(ready[0].revents, -EBADF);
    readiness_set_forget(&set, pairs[0][0]);
    closesocket(pairs[0][1]);

    for (i = 0; i < PAIRS; i++) { /* more than an fd_set holds; each has its turn */
        make_pair(pairs[i]);
        EQUAL(send(pairs[i][1], "x", 1, 0), 1);
        EQUAL(readiness_set_watch(&set, pairs[i][0], READINESS_READ, (uint32_t)i), 0);
    }
    for (count = 0; count < 100 && n > 0; count++) {
        n = readiness_set_wait(&set, ready, 16, 1000);
        for (i = 0; i < n; i++)
            seen[ready[i].generation] = 1;
    }
    for (i = 0, n = 0; i < PAIRS; i++)
        n += seen[i];
    EQUAL(n, PAIRS);
    for (i = 0; i < PAIRS; i++) {
        readiness_set_forget(&set, pairs[i][0]);
        close_pair(pairs[i]);
    }
    EQUAL(set.count, 0);
    readiness_set_close(&set);
}

/* -- The rest */

static void
test_spin(void)
{
    DWORD_PTR all, of_system;
    int pair[2], rc = 0;

    make_pair(pair);
    TAKES(20, rc = spin_until_ready(pair[0], READINESS_READ, 20 * MS));
    EQUAL(rc, 0);
    send(pair[1], "x", 1, 0);
    ABOVE(spin_until_ready(pair[0], READINESS_READ, 5000 * MS), 0);
    closesocket(pair[0]);
    EQUAL(spin_until_ready(pair[0], READINESS_READ, 5000 * MS), -EBADF);
    closesocket(pair[1]);

    EQUAL(GetProcessAffinityMask(GetCurrentProcess(), &all, &of_system), 1);
    EQUAL(!spin_is_possible(), (all & (all - 1)) == 0);
    EQUAL(SetProcessAffinityMask(GetCurrentProcess(), all & -all), 1); /* one CPU of them */
    EQUAL(spin_is_possible(), 0);
    (void)SetProcessAffinityMask(GetCurrentProcess(), all);
}

static void
test_clock(void)
{
    int64_t last = monotonic_ns(), now;
    ULONGLONG ticks = GetTickCount64();
    int i, backwards = 0;

    for (i = 0; i < 100000; i++) {
        now = monotonic_ns();
        backwards += now < last;
        last = now;
    }
    EQUAL(backwards, 0);
    last -= (int64_t)(GetTickCount64() - ticks) * MS; /* when ticks were read */
    Sleep(300);
    now = monotonic_ns() - last;
    ABOVE(now, (int64_t)(GetTickCount64() - ticks) * MS - 50 * MS); /* a tick is 16 ms */
    ABOVE((int64_t)(GetTickCount64() - ticks) * MS + 50 * MS, now);
}

static int calls;

static int
cancel(void *request, char *message, int size)
{
    (void)request; (void)message; (void)size;
    return ++calls;
}

static void
release(void *request)
{
    (void)request;
    calls++;
}

static void
test_cancel_thread(void)
{
    int pair[2];
    make_pair(pair);
    /* There is none: conn.cancel() is called instead. It takes over nothing. */
    EQUAL(cancel_thread_start(&calls, cancel, release, pair[0]), -ENOSYS);
    EQUAL(calls, 0);
    EQUAL(readiness_check(pair[0]), 0);
    close_pair(pair);
}

int
main(void)
{
    WSADATA data;
    setvbuf(stdout, NULL, _IONBF, 0);
    if (WSAStartup(MAKEWORD(2, 2), &data) != 0)
        return 2;
    (void)CloseHandle(CreateThread(NULL, 0, end_of_time, NULL, 0, NULL));
    test_clock();
    test_one();
    for (is_old = 0; is_old < 2; is_old++)
        for (is_strict = 0; is_strict < 2; is_strict++) {
            printf("-- WSAPoll %s, %s\n", is_old ? "before 19041" : "of today",
                is_strict ? "refusing one closed socket" : "as Wine has it");
            test_connect();
            test_set();
        }
    test_spin();
    test_cancel_thread();
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
