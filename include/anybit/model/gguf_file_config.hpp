#pragma once
// The architecture and configuration that an opened GGUF file names.

#include <anybit/core/macros_begin.hpp>

#include <string>

#include <anybit/io/gguf.hpp>
#include <anybit/model/arch/architectures.hpp>
#include <anybit/model/gguf_config.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

namespace detail {

inline Result<DecoderConfig> read_config(const io::GgufFile& file, const Architecture& architecture) {
  GgufConfigReader read(file, architecture.name);
  ANYBIT_TRY(DecoderConfig c, architecture.read_gguf(read));
  ANYBIT_TRY_STATUS(read.all_used());
  c.rope_order = architecture.gguf_order;
  // Files disagree about vocab_size; the embedding says how many rows there are.
  const io::TensorInfo* const embedding = file.find("token_embd.weight");
  c.vocabulary = embedding ? embedding->extents().rows : 1;
  for (DecoderConfig& encoder : c.encoder) encoder.vocabulary = c.vocabulary, encoder.rope_order = c.rope_order;
  return c;
}

/// The architecture of an opened GGUF file.
inline Result<const Architecture*> architecture_of(const io::GgufFile& file) {
  ANYBIT_TRY(const std::string named, file.get_string("general.architecture"));
  const Architecture* const architecture = find_architecture(named);
  if (architecture && architecture->read_gguf) return architecture;
  return {ErrorCode::unsupported, io::detail::text(file.name(), ": general.architecture is ", io::detail::shown(named),
                                                   ": anybit runs ", architecture_names(named), ", use a model of one of these")};
}

}  // namespace detail

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
