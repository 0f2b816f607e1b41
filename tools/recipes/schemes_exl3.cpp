#include <anybit/scheme/trellis_exl3.hpp>

#include "catalog.hpp"

namespace tool {

void add_exl3(Catalog& to) {
  anybit::for_each_exl3([&]<class S>(S) { to.add_readable<S>(); });
}

}  // namespace tool
