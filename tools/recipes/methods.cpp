#include <anybit/algorithm/compile_methods.hpp>
