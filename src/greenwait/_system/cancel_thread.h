/* A thread that calls PQcancel(), which blocks and has no timeout.
 *
 * The thread owns everything it uses. It writes its answer into a pipe, 1 or 0 in the
 * first byte and libpq's message after it, and closes the pipe as its last act. The
 * caller stops waiting by closing the other end. The thread runs no Python and handles
 * no signal; it ends with the process.
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
    written = write(job->fd, answer, 1 + strlen(answer + 1)); /* maybe to no reader */
    (void)written;
    (void)close(job->fd);
    job->release(job->request);
    free(job);
    return NULL;
}

/* Start the thread. Returns 0, and the thread owns the request and the descriptor; or -errno. */
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
        /* The thread inherits the mask: other threads get the signals, and SIGPIPE is blocked. */
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
