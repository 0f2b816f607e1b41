#include <anybit/io/checkpoint_pack.hpp>

#include "catalog.hpp"

namespace tool {

void add_checkpoint_schemes(Catalog& to) {
  anybit::for_each_type(anybit::io::CheckpointSchemes{}, [&]<class S>() { to.add_readable<S>(); });
}

}  // namespace tool
