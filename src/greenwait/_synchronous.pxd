"""Can a greenlet call this: is it a function, and a synchronous one?"""

cpdef int check_synchronous(str caller, object given) except -1
