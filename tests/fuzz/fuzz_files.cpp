// Coverage-guided fuzzing of every file reader, by hand (the seeded mutations in tests/io run with every test):
//   clang++ -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Iinclude
//           tests/fuzz/fuzz_files.cpp -o fuzz_files && ./fuzz_files -max_total_time=300 -max_len=4096 CORPUS
// The first byte of an input chooses the reader; the rest is the file.

#include <cstdlib>

#include <anybit/io/anybit_file.hpp>
#include <anybit/io/gguf.hpp>
#include <anybit/io/llama2c.hpp>

namespace {

using namespace anybit;

template <class File>
void read_tensors(const File& file) {
  for (const auto& t : file.tensors()) static_cast<void>(file.read_f32(t.name));
}

void read_keys(const io::GgufFile& f) {
  for (const auto& key : f.keys()) {
    (void)f.get_u64(key), (void)f.get_f64(key), (void)f.get_bool(key), (void)f.get_string(key);
    (void)f.get_strings(key), (void)f.get_floats(key), (void)f.get_ints(key);
  }
}

void read_packed(const io::AnybitFile& f) {
  for (const auto& t : f.tensors())
    if (const auto p = f.packed(t.name)) {
      std::uint64_t sum = 0;
      for (const auto section : {p->codes(), p->scales(), p->zeros(), p->order()})
        for (const std::byte b : section) sum += std::to_integer<std::uint64_t>(b);
      if (sum > 255 * p->bytes().size()) std::abort();  // never: only so that every byte is read
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto bytes = std::as_bytes(std::span(data + 1, size - 1));
  switch (data[0] % 4) {
    case 0:
      if (const auto f = io::GgufFile::parse(bytes, "fuzz")) read_tensors(*f), read_keys(*f);
      break;
    case 1:
      if (const auto f = io::SafetensorsFile::parse(bytes, "fuzz")) read_tensors(*f);
      break;
    case 2:
      if (const auto f = io::Llama2cFile::parse(bytes, "fuzz")) read_tensors(*f);
      break;
    default:
      if (const auto f = io::AnybitFile::parse(bytes, "fuzz")) read_tensors(*f), read_packed(*f);
      break;
  }
  return 0;
}
