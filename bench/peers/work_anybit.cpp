// anybit's own products: 8-bit activations, weights in the kernel layout.

#include <cstring>
#include <map>
#include <memory>

#include <anybit/exec/thread_pool.hpp>
#include <anybit/kernel/any_packed.hpp>
#include <anybit/scheme/presets.hpp>
#include <anybit/tensor/pack.hpp>
#include <anybit/tensor/quantize.hpp>

#include "worker.hpp"

namespace {

using namespace anybit;

struct Anybit {
  explicit Anybit(peers::Data d) : data(std::move(d)) {}

  std::string open(const std::string& format, long& bytes) {
    using namespace presets;
    const ConstMatrix w{data.weights.data(), peers::rows, peers::cols};
    const auto as = [&]<class S>(const char* name) {
      if (format == name) opened[format] = AnyPacked(pack(quantize_nearest<S>(w).value()));
    };
    as.template operator()<Int<8>>("int8_g128");
    as.template operator()<Int8Group32>("int8_g32");
    as.template operator()<ScaledSuperfloat<7>>("sf7_g128");
    as.template operator()<ScaledSuperfloat<6>>("sf6_g128");
    as.template operator()<ScaledSuperfloat<5>>("sf5_g128");
    as.template operator()<ScaledSuperfloat<4>>("sf4_g128");
    as.template operator()<AsymmetricInt<4>>("uint4_g128");
    as.template operator()<Superfloat4Group32>("sf4_g32");
    as.template operator()<ScaledSuperfloat<3>>("sf3_g128");
    as.template operator()<ScaledSuperfloat<2>>("sf2_g128");
    if (!opened.contains(format)) return "anybit has no format of that name here";
    bytes = opened[format].payload_bytes();
    return "";
  }
  std::string weights(const std::string& format, peers::Floats& out) {
    for (Index r = 0; r < peers::rows; ++r) opened.at(format).dequantize_row(r, {out.data() + r * peers::cols, peers::cols});
    return "";
  }
  std::string run(const std::string& format, long tokens, long threads, long rotate, double seconds, peers::Timing& timing,
                  peers::Floats& y) {
    const AnyPacked& packed = opened.at(format);
    const auto count = static_cast<std::size_t>(peers::copies_for(packed.payload_bytes(), rotate));
    auto& pool = pools[threads];
    if (!pool) pool = std::make_unique<ThreadPool>(threads);
    if (prepared_format != format || prepared.size() != count) {
      drop();
      prepared.assign(count, packed);  // copies share the packed bytes; each gets a kernel layout of its own
      ThreadPool all;
      for (AnyPacked& p : prepared) p.prepare(Compute::int8_per_token, all);
      prepared_format = format;
    }
    const ConstMatrix x{data.activations.data(), tokens, peers::cols};
    timing = peers::time_passes(seconds, static_cast<long>(count), [&] {
      for (const AnyPacked& p : prepared) p.matmul(x, {y.data(), tokens, peers::rows}, Compute::int8_per_token, *pool, workspace);
    });
    return "";
  }
  void drop() { prepared.clear(); }

  peers::Data data;
  std::map<std::string, AnyPacked> opened;
  std::map<long, std::unique_ptr<ThreadPool>> pools;
  std::vector<AnyPacked> prepared;
  std::string prepared_format;
  Workspace workspace;
};

}  // namespace

int main(int argc, char** argv) { return peers::serve<Anybit>(argc, argv); }
