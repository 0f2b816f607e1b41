#pragma once

namespace test_support {

/// The root of the source tree. A function, so that only one object knows the path and compiler caches serve every checkout.
const char* source_dir();

}  // namespace test_support
