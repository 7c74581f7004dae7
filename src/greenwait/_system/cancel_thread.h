/* PQcancel() in a thread of its own: it blocks, and knows no timeout.
 *
 * The thread owns all it works with. Its answer goes into a pipe, 1 or 0 in the
 * first byte and libpq's message after it; then it closes the pipe, which is the last
 * that is heard of it. Whoever does not want to wait any longer closes the other end.
 * It runs no Python and handles no signal; where the process ends first, it ends too.
 */
#ifndef GREENWAIT_CANCEL_THREAD_H
#define GREENWAIT_CANCEL_THREAD_H

#include <errno.h>
#include <stdlib.h>

#define CANCEL_MESSAGE_SIZE 256 /* libpq manual, PQcancel */

typedef int (*cancel_function)(void *request, char *message, int size);
typedef void (*cancel_free_function)(void *request);

#ifdef _WIN32

static inline int
cancel_thread_start(void *request, cancel_function cancel, cancel_free_function release, int fd)
{
    (void)request; (void)cancel; (void)release; (void)fd;
    return -ENOSYS;
}

#else
#  include <pthread.h>
#  include <signal.h>
#  include <string.h>
#  include <unistd.h>

struct cancel_job {
    void *request;
    cancel_function cancel;
    cancel_free_function release;
    int fd;
};

static inline void *
cancel_thread_run(void *argument)
{
    struct cancel_job *job = argument;
    char answer[1 + CANCEL_MESSAGE_SIZE] = {0};
    ssize_t written;

    answer[0] = job->cancel(job->request, answer + 1, CANCEL_MESSAGE_SIZE) ? 1 : 0;
    written = write(job->fd, answer, 1 + strlen(answer + 1)); /* nobody may be reading */
    (void)written;
    (void)close(job->fd);
    job->release(job->request);
    free(job);
    return NULL;
}

/* Takes over the request and the descriptor, if it returns 0; else it is -errno. */
static inline int
cancel_thread_start(void *request, cancel_function cancel, cancel_free_function release, int fd)
{
    struct cancel_job *job = malloc(sizeof *job);
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    int error;

    if (!job)
        return -ENOMEM;
    job->request = request;
    job->cancel = cancel;
    job->release = release;
    job->fd = fd;
    error = pthread_attr_init(&attributes);
    if (!error) {
        (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        /* It inherits the mask: signals are the others' (and SIGPIPE nobody's). */
        (void)sigfillset(&all);
        (void)pthread_sigmask(SIG_SETMASK, &all, &before);
        error = pthread_create(&thread, &attributes, cancel_thread_run, job);
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
        (void)pthread_attr_destroy(&attributes);
    }
    if (error)
        free(job);
    return -error;
}

#endif
#endif
