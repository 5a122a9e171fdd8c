#include <zstd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <memory>
#include <utility>

#include "terrace/base/strong.h"
#include "terrace/trace/reader_internal.h"

namespace terrace::trace {
namespace {

constexpr std::string_view kZstdMagic = "\x28\xB5\x2F\xFD";
constexpr std::size_t kMostUnpacked = std::size_t{4} << 30U;
constexpr std::size_t kStep = std::size_t{1} << 20U;

// POSIX.1-1988 ustar: a header of one record, then the content in whole records.
constexpr std::size_t kRecord = 512;
constexpr std::size_t kNameBytes = 100;
constexpr std::size_t kSizeAt = 124;
constexpr std::size_t kSizeBytes = 12;
constexpr std::size_t kTypeAt = 156;
constexpr std::size_t kMagicAt = 257;

struct FreesStream {
  void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
};

Status torn(const std::string& path, std::string_view what) {
  return {Code::kInvalid, path + ": " + std::string(what) + "; get the file again"};
}

std::string_view until_zero(std::string_view field) { return field.substr(0, field.find('\0')); }

}  // namespace

Result<std::string> unpacked(const std::string& path, std::string bytes) {
  if (!bytes.starts_with(kZstdMagic)) return bytes;
  const std::unique_ptr<ZSTD_DStream, FreesStream> stream(ZSTD_createDStream());
  if (stream == nullptr) return fail(Code::kExhausted, path + ": no memory to unpack it");
  std::string out;
  ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
  std::size_t left = 1;  // 0 = a frame ended.
  std::size_t used = 0;
  while (in.pos < in.size || (left != 0 && used == out.size())) {
    if (out.size() >= kMostUnpacked) {
      return fail(Code::kInvalid, path + ": over 4 GiB unpacked; split the trace");
    }
    if (used == out.size()) out.resize(std::max(kStep, 2 * out.size()));
    ZSTD_outBuffer piece{out.data() + used, out.size() - used, 0};
    const std::size_t before = in.pos;
    left = ZSTD_decompressStream(stream.get(), &piece, &in);
    if (ZSTD_isError(left) != 0) {
      return fail(torn(path, std::string("damaged: ") + ZSTD_getErrorName(left)));
    }
    used += piece.pos;
    if (piece.pos == 0 && in.pos == before) break;
  }
  if (left != 0) return fail(torn(path, "its end is missing (zstd frame cut off)"));
  out.resize(used);
  return out;
}

bool is_tar(std::string_view bytes) {
  return bytes.size() >= kRecord && bytes.substr(kMagicAt, 5) == "ustar";
}

namespace {

// What a pax header ("LENGTH KEYWORD=VALUE\n", each) says of the next member's name; else nothing.
std::string pax_name(std::string_view records) {
  std::string name;
  while (!records.empty()) {
    std::size_t length = 0;
    const auto [end, error] =
        std::from_chars(records.data(), records.data() + records.size(), length);
    const auto digits = static_cast<std::size_t>(end - records.data());
    if (error != std::errc{} || length <= digits + 1 || length > records.size()) break;
    const std::string_view one = records.substr(digits + 1, length - digits - 2);
    if (one.starts_with("path=")) name = one.substr(5);
    records.remove_prefix(length);
  }
  return name;
}

}  // namespace

Result<std::vector<Member>> tar_members(const std::string& path, std::string_view bytes) {
  std::vector<Member> members;
  std::string long_name;  // Of the next member, where its header has no room for it.
  while (is_tar(bytes)) {
    const std::string name = long_name.empty()
                                 ? std::string(until_zero(bytes.substr(0, kNameBytes)))
                                 : std::exchange(long_name, {});
    std::string_view digits = until_zero(bytes.substr(kSizeAt, kSizeBytes));
    digits = digits.substr(0, digits.find(' '));
    std::size_t size = 0;
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), size, 8);
    if (error != std::errc{} || end != digits.data() + digits.size()) {
      return fail(torn(path, "damaged archive: no size at " + name));
    }
    const char type = bytes[kTypeAt];
    bytes.remove_prefix(kRecord);
    const std::size_t records = (size + kRecord - 1) / kRecord * kRecord;
    if (records > bytes.size()) {
      return fail(torn(path, "the archive ends inside " + name));
    }
    const std::string_view content = bytes.substr(0, size);
    if (type == 'L') long_name = until_zero(content);  // GNU's way of saying it.
    if (type == 'x') long_name = pax_name(content);
    if (type == '0' || type == '\0') members.push_back({name, content});
    bytes.remove_prefix(records);
  }
  // The end is two records of zeros.
  if (bytes.size() < kRecord || bytes.substr(0, kRecord).find_first_not_of('\0') != bytes.npos) {
    return fail(torn(path, "the archive has no end"));
  }
  return members;
}

}  // namespace terrace::trace
