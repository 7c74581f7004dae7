"""Attributes of psycopg2's types: their values, whatever a subclass makes of them."""

cdef extern from *:
    """
    /* Called as a method of the attribute, __get__() costs several times as much. */
    static PyObject *
    value_of(PyObject *attribute, PyObject *object)
    {
        return Py_TYPE(attribute)->tp_descr_get(attribute, object, (PyObject *)Py_TYPE(object));
    }
    """
    object value_of(object attribute, object instance)
