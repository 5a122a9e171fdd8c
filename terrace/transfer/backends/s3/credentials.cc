#include <fmt/format.h>
#include <sys/stat.h>

#include "terrace/base/file.h"
#include "terrace/transfer/backends/s3/credentials_internal.h"

namespace terrace::transfer::s3 {

namespace {

constexpr std::uint64_t kMostFileBytes = 1U << 20U;

std::string_view trimmed(std::string_view text) {
  const auto is_space = [](char byte) { return byte == ' ' || byte == '\t' || byte == '\r'; };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

// They go into headers: one line, nothing that ends it.
bool is_printable(std::string_view text) {
  for (const char byte : text) {
    if (byte <= ' ' || byte > '~') return false;
  }
  return true;
}

Status check(const S3Credentials& credentials, std::string_view source) {
  std::string_view fault;
  if (credentials.key_id.empty()) fault = "no aws_access_key_id";
  if (fault.empty() && credentials.secret_key.empty()) fault = "no aws_secret_access_key";
  if (fault.empty() &&
      (!is_printable(credentials.key_id) || !is_printable(credentials.secret_key) ||
       !is_printable(credentials.session_token))) {
    fault = "a key with spaces or bytes that are no ASCII";
  }
  if (fault.empty()) return {};
  return {Code::kRefused, fmt::format("s3 credentials: {} in {}", fault, source), Scope::kBackend};
}

}  // namespace

Result<S3Credentials> parse_credentials(std::string_view text, std::string_view profile) {
  S3Credentials found;
  bool is_ours = false;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty() || line.front() == '#' || line.front() == ';') continue;
    if (line.front() == '[') {
      is_ours = line.ends_with(']') && trimmed(line.substr(1, line.size() - 2)) == profile;
      continue;
    }
    const std::size_t equals = line.find('=');
    if (!is_ours || equals == std::string_view::npos) continue;
    const std::string_view name = trimmed(line.substr(0, equals));
    const std::string value(trimmed(line.substr(equals + 1)));
    if (name == "aws_access_key_id") found.key_id = value;
    if (name == "aws_secret_access_key") found.secret_key = value;
    if (name == "aws_session_token") found.session_token = value;
  }
  TERRACE_RETURN_IF_ERROR(check(found, fmt::format("profile [{}]", profile)));
  return found;
}

bool CredentialSource::Stamp::is_same(const Stamp& other) const {
  return inode == other.inode && bytes == other.bytes && changed.tv_sec == other.changed.tv_sec &&
         changed.tv_nsec == other.changed.tv_nsec;
}

Result<CredentialSource> CredentialSource::create(const S3Options& options) {
  CredentialSource source;
  if (!options.credentials.key_id.empty() || options.credentials_file.empty()) {
    source.credentials_ = options.credentials;
    TERRACE_RETURN_IF_ERROR(check(source.credentials_, "the options"));
    return source;
  }
  source.file_ = options.credentials_file;
  source.profile_ = options.profile;
  source.seen_ = source.stamp();
  TERRACE_RETURN_IF_ERROR(source.read());
  return source;
}

CredentialSource::Stamp CredentialSource::stamp() const {
  struct stat facts{};
  if (::stat(file_.c_str(), &facts) != 0) return {};
  return {facts.st_ino, facts.st_size, facts.st_mtim};
}

Status CredentialSource::read() {
  const auto text = read_file(file_, Bytes(kMostFileBytes));
  if (!text) {
    return {Code::kRefused, fmt::format("s3 credentials: {}", text.error().message()),
            Scope::kBackend};
  }
  auto found = parse_credentials(*text, profile_);
  if (!found) {
    return {Code::kRefused, fmt::format("{} of {}", found.error().message(), file_),
            Scope::kBackend};
  }
  credentials_ = *std::move(found);
  return {};
}

const S3Credentials& CredentialSource::current() {
  if (file_.empty()) return credentials_;
  const Stamp now = stamp();
  if (!now.is_same(seen_)) {
    seen_ = now;
    (void)read();
  }
  return credentials_;
}

bool CredentialSource::renew(const S3Credentials& refused) {
  if (file_.empty()) return false;
  seen_ = stamp();
  return read().is_ok() && !(credentials_ == refused);
}

}  // namespace terrace::transfer::s3
