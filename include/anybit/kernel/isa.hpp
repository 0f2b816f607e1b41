#pragma once
// One program for many processors: functions that CMake's anybit_add_kernels compiles once per architecture, and the choice
// among them at run time. docs/use_in_your_engine.md has the example.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <type_traits>

#include <anybit/core/config.hpp>

#if defined(__x86_64__) && defined(__GNUC__)
#include <anybit/kernel/x86/processor.hpp>
#elif defined(__aarch64__) && defined(__GNUC__)
#include <anybit/kernel/arm/processor.hpp>
#else
namespace anybit::kernel {
inline namespace ANYBIT_CODE {
namespace detail {
struct Architecture {
  const char* name;
  std::uint32_t needs;
};
inline constexpr Architecture architectures[] = {{"generic", 0}};
constexpr ANYBIT_INLINE std::uint32_t compiled_features() { return 0; }
inline std::uint32_t processor_features() { return 0; }
}  // namespace detail
}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel
#endif

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

namespace detail {

/// The best of all architectures that `features` serve.
constexpr ANYBIT_INLINE std::string_view best_for(std::uint32_t features) {
  std::string_view best;
  for (const Architecture& a : architectures)
    if ((a.needs & ~features) == 0) best = a.name;
  return best;
}

/// `list` has names with commas between them.
constexpr ANYBIT_INLINE bool is_listed(std::string_view list, std::string_view name) {
  for (std::size_t at = 0; at <= list.size();) {
    std::size_t end = list.find(',', at);
    if (end == list.npos) end = list.size();
    if (list.substr(at, end - at) == name) return true;
    at = end + 1;
  }
  return false;
}

}  // namespace detail

/// The one of `built` (names with commas between them) that this program runs: the one that the environment variable ANYBIT_ISA
/// names, else the best that processor and operating system can run. Empty if there is none.
inline std::string_view find_isa(std::string_view built) {
  const char* wanted = std::getenv("ANYBIT_ISA");
  const bool forced = wanted != nullptr && *wanted != '\0';
  const std::uint32_t features = detail::processor_features();
  std::string_view best;
  for (const detail::Architecture& a : detail::architectures)
    if (detail::is_listed(built, a.name) && (a.needs & ~features) == 0 && (!forced || std::string_view(wanted) == a.name))
      best = a.name;
  return best;
}

/// find_isa(); ends the program with a sentence if there is none.
inline std::string_view chosen_isa(std::string_view built) {
  if (const std::string_view found = find_isa(built); !found.empty()) return found;
  const char* wanted = std::getenv("ANYBIT_ISA");
  const bool forced = wanted != nullptr && *wanted != '\0';
  const std::uint32_t features = detail::processor_features();
  const std::string_view here = detail::best_for(features);
  if (forced)
    std::fprintf(stderr, "anybit: ANYBIT_ISA=%s cannot be had: this program was built for %.*s, and this processor is %.*s\n",
                 wanted, static_cast<int>(built.size()), built.data(), static_cast<int>(here.size()), here.data());
  else
    std::fprintf(stderr, "anybit: this program was built for %.*s, and this processor is only %.*s; add %.*s to ARCHS\n",
                 static_cast<int>(built.size()), built.data(), static_cast<int>(here.size()), here.data(),
                 static_cast<int>(here.size()), here.data());
  std::abort();
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

namespace anybit {
inline namespace ANYBIT_CODE {

/// The best architecture that this file's own flags allow everywhere: "x86-64-v3", "dotprod", ..
constexpr ANYBIT_INLINE std::string_view compiled_isa() { return kernel::detail::best_for(kernel::detail::compiled_features()); }

/// The architecture whose kernels run. In a target with anybit_add_kernels: the one chosen, the same at every call unless the
/// program changes its environment; else compiled_isa().
ANYBIT_INLINE std::string_view active_isa() {
#if defined(ANYBIT_ARCHS)
  return kernel::chosen_isa(ANYBIT_ARCHS);
#else
  return compiled_isa();
#endif
}

}  // namespace ANYBIT_CODE
}  // namespace anybit

/// ANYBIT_KERNELS(Table, name); declares `const Table& name();`, at namespace scope in a header. A source file given to
/// anybit_add_kernels defines it; whoever calls it gets the one for this processor. Compiled as an ordinary source the
/// same file works too, for the processors that its flags allow. Names are shared by the whole program, whatever their namespace.
#if defined(__GNUC__)
#define ANYBIT_KERNELS(Table, name)                                                                                        \
  static_assert(std::is_trivially_copyable_v<Table>,                                                                       \
                "ANYBIT_KERNELS: a table holds pointers to functions and plain data: nothing that allocates or is freed"); \
  const Table& name() __asm__("anybit_kernels_" #name)
#else
#define ANYBIT_KERNELS(Table, name) const Table& name()
#endif

#if defined(ANYBIT_KERNELS_ARCH)  // set by anybit_add_kernels
static_assert(anybit::compiled_isa() == ANYBIT_KERNELS_ARCH,
              "anybit_add_kernels: other -m flags of this target (CMAKE_CXX_FLAGS, target_compile_options) change what this "
              "architecture may use: take them away");
#endif
