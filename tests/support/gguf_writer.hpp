#pragma once

#include <anybit/io/gguf_writer.hpp>

namespace test_support {
using anybit::io::GgufWriter;
}
