#include "machine.hpp"

#include <fstream>

namespace tool {

#define TOOL_TEXT_(x) #x
#define TOOL_TEXT(x) TOOL_TEXT_(x)

std::string machine_description(anybit::Index threads) {
  std::string name = "unknown processor";
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    const auto colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) {
      name = line.substr(colon + 2);
      break;
    }
  }
  return name + ", " + std::to_string(threads) + (threads == 1 ? " thread" : " threads") + ", code for " TOOL_TEXT(ANYBIT_ISA);
}

}  // namespace tool
