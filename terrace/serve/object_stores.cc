#include "terrace/serve/object_stores.h"

#include "terrace/transfer/backends/dir/dir_store.h"
#include "terrace/transfer/backends/s3/s3_store.h"

namespace terrace::serve {

namespace {

transfer::S3Options s3_options(const config::ObjectSettings& object) {
  transfer::S3Options options;
  options.endpoint = object.endpoint;
  options.bucket = object.bucket;
  options.prefix = object.prefix;
  options.region = object.region;
  options.uses_path_style = object.style == config::ObjectStyle::kPath;
  options.credentials = {.key_id = object.access_key,
                         .secret_key = object.secret_key,
                         .session_token = object.session_token};
  options.credentials_file = object.credentials_file;
  options.profile = object.profile;
  options.ca_file = object.ca_file;
  options.depth = object.depth;
  return options;
}

}  // namespace

OpenObjectStore object_store(const config::ObjectSettings& object) {
  if (!object.path.empty()) {
    transfer::DirStoreOptions dir;
    dir.path = object.path;
    dir.depth = object.depth;
    dir.is_group_shared = object.shared_group;
    return [dir](const Clock&, LogSink&) { return transfer::make_dir_store(dir); };
  }
  if (!object.enabled) return {};
  return [s3 = s3_options(object)](const Clock& clock, LogSink& log) {
    return transfer::make_s3_store(s3, clock, log);
  };
}

tier::CollectOptions collect_options(const config::ObjectSettings& object) {
  tier::CollectOptions options;
  options.bounds = {
      .max_age = object.max_age, .bytes = object.size.value(), .blocks = object.blocks.value()};
  options.every = object.gc_every;
  options.touch_every = object.touch_every;
  return options;
}

}  // namespace terrace::serve
