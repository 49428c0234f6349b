/* The numbers of a JSON array, from text straight to 32-bit floats. See decimals.py.
 *
 * It takes arrays of plain numbers, and gives for each exactly the float that the long way gives: the
 * double nearest to the text, rounded to a float. To find that float it is enough to know the number
 * to some parts in 2^52, as the products below do, unless it lies that close to the middle between
 * two floats. Then, and for anything odd or at the ends of the range, it gives nothing, and the long
 * way reads it. No byte behind the bytes object is looked at: its last one is a NUL, which no loop
 * below passes, and eight bytes at once are looked at only where eight are left.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define IS_DIGIT(c) ((unsigned)((c) - '0') < 10u)
#define LARGEST_EXPONENT 40
#define MOST (1 << 20)

static const double UP[LARGEST_EXPONENT + 1] = {
    1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11, 1e12, 1e13,
    1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22, 1e23, 1e24, 1e25, 1e26, 1e27,
    1e28, 1e29, 1e30, 1e31, 1e32, 1e33, 1e34, 1e35, 1e36, 1e37, 1e38, 1e39, 1e40};
static const double DOWN[LARGEST_EXPONENT + 1] = {
    1e-0,  1e-1,  1e-2,  1e-3,  1e-4,  1e-5,  1e-6,  1e-7,  1e-8,  1e-9,  1e-10, 1e-11, 1e-12, 1e-13,
    1e-14, 1e-15, 1e-16, 1e-17, 1e-18, 1e-19, 1e-20, 1e-21, 1e-22, 1e-23, 1e-24, 1e-25, 1e-26, 1e-27,
    1e-28, 1e-29, 1e-30, 1e-31, 1e-32, 1e-33, 1e-34, 1e-35, 1e-36, 1e-37, 1e-38, 1e-39, 1e-40};

/* Digits at p are added to *value; where they end. */
static inline const char *digits(const char *p, const char *end, uint64_t *value)
{
    uint64_t sum = *value;
#if defined(__GNUC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    static const uint64_t TENS[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};
    /* Up to eight at once, however many: a branch for each costs more than all the arithmetic. */
    while (end - p >= 8) {
        uint64_t eight, others;
        memcpy(&eight, p, 8);
        eight ^= 0x3030303030303030u;
        others = (eight | (eight + 0x7676767676767676u)) & 0x8080808080808080u;
        int count = others ? __builtin_ctzll(others) >> 3 : 8;
        if (count == 0)
            break;
        eight <<= 64 - 8 * count;          /* zeros in front of them */
        eight = eight * 10 + (eight >> 8); /* pairs, then fours, then all eight */
        eight = ((eight & 0x000000FF000000FFu) * 0x000F424000000064u +
                 ((eight >> 16) & 0x000000FF000000FFu) * 0x0000271000000001u) >> 32;
        sum = sum * TENS[count] + (uint32_t)eight;
        p += count;
        if (count < 8) {
            *value = sum;
            return p;
        }
    }
#endif
    while (IS_DIGIT(*p))
        sum = sum * 10 + (uint64_t)(*p++ - '0');
    *value = sum;
    return p;
}

static inline const char *space(const char *p)
{
    while ((unsigned char)*p <= ' ' && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r'))
        p++;
    return p;
}

/* One number; where it ends, or NULL. */
static inline const char *number(const char *p, const char *end, float *out)
{
    int negative = *p == '-', plain = 1;
    long exponent = 0;
    uint64_t mantissa = 0, bits;
    const char *first = p += negative, *dot;
    if (*p == '0')
        p++; /* nothing but a dot or an exponent may follow: another digit ends all below */
    else if ((p = digits(p, end, &mantissa)) == first)
        return NULL;
    ptrdiff_t length = p - first;
    if (*p == '.') {
        dot = ++p;
        if ((p = digits(p, end, &mantissa)) == dot)
            return NULL;
        exponent = (long)(dot - p);
        length += p - dot;
        plain = 0;
    }
    if (length > 19) { /* more do not fit, but for zeros at the beginning */
        while (first < p && (*first == '0' || *first == '.'))
            length -= *first++ == '0';
        if (length > 19)
            return NULL;
    }
    if (*p == 'e' || *p == 'E') {
        int down = *++p == '-';
        uint64_t more = 0;
        const char *start = p += down || *p == '+';
        p = digits(p, end, &more);
        if (p == start || p - start > 3)
            return NULL;
        exponent += down ? -(long)more : (long)more;
        plain = 0;
    }
    double wide = (double)mantissa;
    if (!plain || mantissa >> 53) {
        if (exponent < -LARGEST_EXPONENT || exponent > LARGEST_EXPONENT)
            return NULL;
        wide *= exponent < 0 ? DOWN[-exponent] : UP[exponent];
        memcpy(&bits, &wide, 8);
        /* A float keeps all but 29 bits of a double; half of them is the middle. */
        if ((bits & 0x1FFFFFFF) - 0x0FFFFFF8 <= 0x10)
            return NULL;
        if (mantissa && (wide < 1e-30 || wide > 1e30))
            return NULL;
    }
    if (negative && !(plain && !mantissa)) /* an integer has no zero below zero */
        wide = -wide;
    *out = (float)wide;
    return p;
}

static PyObject *floats(PyObject *module, PyObject *const *arguments, Py_ssize_t given)
{
    (void)module;
    if (given != 3 || !PyBytes_CheckExact(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "floats takes bytes, a position and a number of floats");
        return NULL;
    }
    Py_ssize_t start = PyLong_AsSsize_t(arguments[1]), count = PyLong_AsSsize_t(arguments[2]);
    if (PyErr_Occurred())
        return NULL;
    Py_ssize_t size = PyBytes_GET_SIZE(arguments[0]);
    if (start < 0 || start >= size || count < 1 || count > MOST || count > size)
        Py_RETURN_NONE;
    const char *begin = PyBytes_AS_STRING(arguments[0]), *end = begin + size, *p = begin + start;
    PyObject *found = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(float));
    if (found == NULL)
        return NULL;
    float *out = (float *)PyBytes_AS_STRING(found);
    for (Py_ssize_t at = 0; at < count; at++) {
        if (*p != (at ? ',' : '['))
            goto odd;
        p = number(space(p + 1), end, out + at);
        if (p == NULL)
            goto odd;
        p = space(p);
    }
    if (*p != ']')
        goto odd;
    return Py_BuildValue("(Nn)", found, (Py_ssize_t)(p + 1 - begin));
odd:
    Py_DECREF(found);
    Py_RETURN_NONE;
}

static PyMethodDef METHODS[] = {
    {"floats", (PyCFunction)(void (*)(void))floats, METH_FASTCALL, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_decimals", NULL, -1, METHODS,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__decimals(void)
{
    return PyModule_Create(&MODULE);
}
