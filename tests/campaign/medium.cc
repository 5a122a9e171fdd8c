#include "campaign/medium.h"

#include <filesystem>
#include <fstream>

namespace terrace::campaign {

namespace fs = std::filesystem;

namespace {
transfer::Recorder::Kind kind_of(testing::FileChange::Kind kind) {
  using Change = testing::FileChange::Kind;
  using Kind = transfer::Recorder::Kind;
  switch (kind) {
    case Change::kCreate:
      return Kind::kCreate;
    case Change::kDirectory:
      return Kind::kDirectory;
    case Change::kWrite:
      return Kind::kWrite;
    case Change::kTruncate:
      return Kind::kTruncate;
    case Change::kAllocate:
      return Kind::kAllocate;
    case Change::kRename:
      return Kind::kRename;
    case Change::kRemove:
      return Kind::kRemove;
    case Change::kRemoveDirectory:
      return Kind::kRemoveDirectory;
    case Change::kSync:
      return Kind::kSync;
  }
  return Kind::kSync;
}
}  // namespace

void OpeningWatch::on_change(const testing::FileChange& change) {
  if (!change.path.starts_with(below_)) return;
  recorder_.note({.kind = kind_of(change.kind),
                  .path = change.path,
                  .offset = change.offset,
                  .bytes = change.bytes,
                  .file_bytes = change.length,
                  .source = change.source});
}

bool land(const transfer::Recorder::Landed& landed, const std::string& path,
          const std::string& source) {
  using Kind = transfer::Recorder::Kind;
  std::error_code error;
  switch (landed.kind) {
    case Kind::kWrite: {
      if (!fs::exists(path)) return true;  // Its name has not landed.
      std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(static_cast<std::streamoff>(landed.offset));
      file.write(reinterpret_cast<const char*>(landed.bytes.data()),
                 static_cast<std::streamsize>(landed.bytes.size()));
      return file.good();
    }
    case Kind::kAllocate:
      if (fs::exists(path) && fs::file_size(path) < landed.file_bytes) {
        fs::resize_file(path, landed.file_bytes, error);
      }
      break;
    case Kind::kCreate:
      std::ofstream(path, std::ios::binary | std::ios::trunc).close();
      break;
    case Kind::kDirectory:
      fs::create_directory(path, error);
      break;
    case Kind::kTruncate:
      fs::resize_file(path, landed.file_bytes, error);
      break;
    case Kind::kRename:
      fs::rename(source, path, error);
      break;
    case Kind::kRemove:
    case Kind::kRemoveDirectory:
      fs::remove(path, error);
      break;
    case Kind::kSync:
      break;
  }
  return !error;
}

}  // namespace terrace::campaign
