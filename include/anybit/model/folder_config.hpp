#pragma once
// The architecture and configuration that a Hugging Face folder names.

#include <anybit/core/macros_begin.hpp>

#include <string>

#include <anybit/io/hf_folder.hpp>
#include <anybit/model/arch/architectures.hpp>
#include <anybit/model/hf_config.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

namespace detail {

/// The architecture and configuration of a Hugging Face folder.
struct FolderConfig {
  const Architecture* architecture = nullptr;
  DecoderConfig config;
  bool tied = false;        ///< the head is the embedding
  bool text_alone = false;  ///< the folder has a model of images as well
};
inline Result<FolderConfig> read_config(const io::HfFolder& folder) {
  io::JsonObject json = folder.config();
  FolderConfig out;
  if (json.has("text_config")) {
    out.text_alone = true;
    ANYBIT_TRY(json, json.object("text_config"));
  }
  ANYBIT_TRY(const std::string type, json.text("model_type"));
  out.architecture = find_model_type(type);
  if (!out.architecture)
    return {ErrorCode::unsupported, io::detail::text(json.file(), ": ", json.path("model_type"), " is ", io::detail::shown(type),
                                                     ": anybit runs ", model_type_names(type), ", use a model of one of these")};
  HfConfigReader read(json);
  ANYBIT_TRY(out.config, out.architecture->read_hugging_face(read));
  ANYBIT_TRY_STATUS(read.all_neutral());
  out.config.rope_order = out.architecture->hugging_face_order;
  for (DecoderConfig& encoder : out.config.encoder) encoder.rope_order = out.config.rope_order;
  out.tied = read.tied();
  if (auto valid = check(out.config); !valid) return in_context(valid.error(), json.file());
  return out;
}

}  // namespace detail

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
