#include "terrace/manager/key_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "terrace/base/file.h"
#include "terrace/base/rng.h"

namespace terrace::manager {
namespace {

// A key's text has 79 bytes; what is longer is something else.
constexpr std::size_t kMostBytes = 256;

Status check_owner(const struct stat& facts, const std::string& path) {
  if ((facts.st_mode & 077U) != 0) {
    return {Code::kRefused,
            fmt::format("key file {}: its mode {:04o} lets others than its owner use it; chmod 600 "
                        "it, and make a new key if others had access",
                        path, facts.st_mode & 07777U)};
  }
  if (facts.st_uid != ::geteuid() && facts.st_uid != 0) {
    return {Code::kRefused,
            fmt::format("key file {}: it belongs to user {}, this is user {}; chown it, or name a "
                        "file of one's own",
                        path, facts.st_uid, ::geteuid())};
  }
  return {};
}

// The way out where the file cannot be opened.
Status unreadable(const std::string& path, const Status& why) {
  return {why.code(), fmt::format("key file {}: {}; `terrace key new {}` makes one, "
                                  "encryption.key_file and encryption.old_key_files name them",
                                  path, why.message(), path)};
}

struct Text {
  ~Text() { wipe(bytes); }
  std::array<std::uint8_t, kMostBytes> bytes{};
  std::size_t size = 0;
  [[nodiscard]] std::string_view view() const {
    return {reinterpret_cast<const char*>(bytes.data()), size};
  }
};

Status read_all(int file, const std::string& path, Text& text) {
  for (;;) {
    const ssize_t got = ::read(file, text.bytes.data() + text.size, kMostBytes - text.size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Status::from_errno(errno, "read", path);
    text.size += static_cast<std::size_t>(got);
    if (got == 0 || text.size == kMostBytes) return {};
  }
}

Status write_all(int file, const std::string& path, std::string_view text) {
  while (!text.empty()) {
    const ssize_t got = ::write(file, text.data(), text.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Status::from_errno(errno, "write", path);
    text.remove_prefix(static_cast<std::size_t>(got));
  }
  if (::fsync(file) != 0) return Status::from_errno(errno, "fsync", path);
  const auto slash = path.rfind('/');
  if (slash == std::string::npos) return sync_directory(".");
  return sync_directory(path.substr(0, std::max<std::size_t>(slash, 1)));
}

}  // namespace

Result<Secret> read_key_file(const std::string& path) {
  auto file = open_regular_file(path, O_RDONLY);
  if (!file) return fail(unreadable(path, file.error()));
  struct stat facts{};
  if (::fstat(file->get(), &facts) != 0) return fail(Status::from_errno(errno, "fstat", path));
  TERRACE_RETURN_IF_ERROR(check_owner(facts, path));
  Text text;
  if (const Status status = read_all(file->get(), path, text); !status.is_ok()) {
    return fail(unreadable(path, status));
  }
  auto secret = parse_master_key(text.view());
  if (!secret) {
    return fail(Code::kInvalid, fmt::format("key file {}: {}", path, secret.error().message()));
  }
  return secret;
}

Result<KeyId> make_key_file(const std::string& path) {
  TERRACE_ASSIGN_OR_RETURN(Secret secret, Secret::create());
  for (std::size_t at = 0; at < kSecretBytes; at += sizeof(std::uint64_t)) {
    const std::uint64_t word = random_u64();
    std::memcpy(secret.bytes().data() + at, &word, sizeof word);
  }
  auto file = open_file(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
  if (!file) {
    const bool is_there = file.error().message().find("EEXIST") != std::string::npos;
    return fail(is_there ? Code::kInvalid : file.error().code(),
                fmt::format("key file {}: {}", path,
                            is_there ? "there is something of that name, and a key is never "
                                       "written over another one; choose another name"
                                     : file.error().message()));
  }
  std::string text = master_key_text(secret);
  Status status;
  if (::fchmod(file->get(), 0600) != 0) status = Status::from_errno(errno, "fchmod", path);
  if (status.is_ok()) status = write_all(file->get(), path, text);
  wipe({reinterpret_cast<std::uint8_t*>(text.data()), text.size()});
  if (!status.is_ok()) {
    (void)::unlink(path.c_str());
    return fail(Status(status.code(), fmt::format("key file {}: {}", path, status.message())));
  }
  return key_id_of(secret);
}

Result<std::shared_ptr<const KeyRing>> load_keys(const KeySources& sources) {
  if (sources.key_file.empty() && sources.key.empty()) return nullptr;
  auto ring = std::make_shared<KeyRing>();
  if (!sources.key.empty()) {
    auto secret = parse_master_key(sources.key);
    if (!secret) {
      return fail(Code::kInvalid, "setting encryption.key: " + secret.error().message());
    }
    ring->add(*std::move(secret));
  } else {
    TERRACE_ASSIGN_OR_RETURN(Secret secret, read_key_file(sources.key_file));
    ring->add(std::move(secret));
  }
  for (const std::string& path : sources.old_key_files) {
    TERRACE_ASSIGN_OR_RETURN(Secret secret, read_key_file(path));
    ring->add(std::move(secret));
  }
  return std::shared_ptr<const KeyRing>(std::move(ring));
}

}  // namespace terrace::manager
