/* Has our C take this system for another one, which has poll(2) and not epoll(7). Included
 * before everything else. Debian's pyconfig.h asks for its own system, and so comes first. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#undef __linux__
#undef linux
