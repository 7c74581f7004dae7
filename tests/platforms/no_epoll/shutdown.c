/* Loaded into the process before libc (ld.so(8), LD_PRELOAD): shutdown(2) does nothing to a
 * connect(2) that is under way, as on FreeBSD. There it only notes that a FIN is to follow
 * (tcp_usrclosed() in netinet/tcp_usrreq.c, TCPS_SYN_SENT). On macOS the attempt ends, and is
 * no error either: docs/limits.md. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

int
shutdown(int fd, int how)
{
    int (*next)(int, int) = (int (*)(int, int))dlsym(RTLD_NEXT, "shutdown");
    struct tcp_info info;
    socklen_t size = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0
            && info.tcpi_state == TCP_SYN_SENT)
        return 0;
    return next(fd, how);
}
