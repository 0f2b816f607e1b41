// Every header under the macros of other libraries. Standard headers come first, as in programs that meet such macros: their own
// authors look after them.

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <bitset>
#include <charconv>
#include <chrono>
#include <cmath>
#include <complex>
#include <concepts>
#include <cstring>
#include <deque>
#include <filesystem>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <vector>

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <xsimd/xsimd.hpp>

// <windows.h>
#define min(a, b) (((a) < (b)) ? (a) : (b))
#define max(a, b) (((a) > (b)) ? (a) : (b))
#define near
#define far
#define small char
#define huge
#define hyper long long
#define interface struct
#define ERROR 0
#define IN
#define OUT
#define OPTIONAL
#define DELETE 0x10000
#define TRUE 1
#define FALSE 0
#define CONST const
// <AssertMacros.h>
#define check(assertion) \
  do {                   \
    (void)(assertion);   \
  } while (0)
#define verify(assertion) \
  do {                    \
    (void)(assertion);    \
  } while (0)
#define require(assertion, label) \
  do {                            \
    if (!(assertion)) goto label; \
  } while (0)
// <X11/Xlib.h> and <X11/X.h>
#define Status int
#define Bool int
#define True 1
#define False 0
#define None 0L
#define Success 0
#define Always 2
#define Complex 0
#define Absolute 1
#define Above 0
#define Below 1
// Objective-C, <complex.h>, Qt
#define BOOL signed char
#define I _Complex_I
#define signals public
#define slots
#define emit
#define foreach(a, b) for (a : b)

#include "every_header.hpp"

// They are all given back.
static_assert(min(1, 2) == 1 && max(1, 2) == 2 && True == 1 && Success == 0 && Always == 2 && ERROR == 0 && None == 0);
Status none_is_left(near Bool far b);
Status none_is_left(near Bool far b) {
  check(b == True);
  return b == False ? ERROR : Success;
}
