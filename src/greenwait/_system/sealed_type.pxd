"""Types that only greenwait can instantiate; see ``sealed_type.h``."""

cdef extern from "sealed_type.h":
    void seal_type(type cls, const char* made_by) noexcept
