// The readers of models, compiled once for tests, tools and benchmarks: model/load.hpp says how.
#include <anybit/model/load_bodies.hpp>
