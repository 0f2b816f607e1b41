// EXPECT: error:
// A read-only view never becomes a mutable one.
#include <anybit/core/view.hpp>

#ifdef ANYBIT_FIXED
anybit::ConstMatrix same(anybit::MutableMatrix v) { return v; }
#else
anybit::MutableMatrix same(anybit::ConstMatrix v) { return v; }
#endif
