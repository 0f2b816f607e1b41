#pragma once

namespace reproduce {

int run(int argc, const char* const* argv);

}  // namespace reproduce
