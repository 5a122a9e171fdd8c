#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <optional>

#include "terrace/base/file.h"
#include "terrace/block/fingerprint.h"
#include "terrace/tier/disk/format_internal.h"
#include "terrace/tier/disk/meta_scan_internal.h"
#include "terrace/tier/disk/namespace_facts_internal.h"
#include "terrace/wire/frame.h"

namespace terrace::tier::disk {

namespace {
// Runs whose first slot is asked. One frame that is whole is enough; where so many are not, the
// directory has more damage than a text.
constexpr int kMostRunsAsked = 64;

struct Digests {
  std::string content;
  std::string layout;
  friend bool operator==(const Digests&, const Digests&) = default;
};

template <std::size_t N>
std::string hex_of(const std::array<std::uint8_t, N>& bytes) {
  return fmt::format("{:02x}", fmt::join(bytes, ""));
}

// The frame of the first slot of a run, group 0, rank 0, stands at the run's start whatever the
// layout is.
std::optional<Digests> read_frame(int data, const SealedSlot& sealed, std::uint64_t extent_bytes) {
  std::array<std::byte, wire::kFrameHeaderBytes> page{};
  const std::uint64_t offset = sealed.first_extent * extent_bytes;
  if (::pread(data, page.data(), page.size(), static_cast<off_t>(offset)) !=
      static_cast<ssize_t>(page.size())) {
    return std::nullopt;
  }
  const auto frame = wire::decode_frame(page);
  if (!frame || frame->hash != sealed.record.hash || frame->group != GroupId(0) ||
      frame->rank != RankId(0) || frame->generation != Generation(sealed.record.generation) ||
      frame->era != sealed.era) {
    return std::nullopt;
  }
  return Digests{hex_of(frame->content_digest), hex_of(frame->layout_digest)};
}

// What the namespace's own frames say; nothing when no whole one is found. Into `facts`: what the
// records say.
std::optional<Digests> ask_frames(const std::string& directory, NamespaceFacts& facts,
                                  const ExtentTable& table) {
  const auto data = open_regular_file(directory + "/0.slots", O_RDONLY);
  std::optional<Digests> found;
  int asked = 0;
  bool has_blocks = false;
  const auto scan =
      scan_meta(directory, facts.directory, facts.number, table, [&](const SealedSlot& sealed) {
        has_blocks = true;
        if (!data) return false;
        if (sealed.record.group != 0 || !sealed.is_first_of_run) return true;
        found = read_frame(data->get(), sealed, table.extent_bytes());
        return !found && ++asked < kMostRunsAsked;
      });
  if (scan) {
    facts.generation = scan->generation;
    facts.has_blocks = has_blocks;
  }
  return found;
}

// Into `facts`: text and its digests, or why not.
void read_text(const std::string& path, NamespaceFacts& facts) {
  auto text = read_file(path, 1_MiB);
  if (!text) {
    facts.text_problem = text.error().message();
    return;
  }
  const auto fingerprint = Fingerprint::parse(*text);
  if (!fingerprint) {
    facts.text_problem = fingerprint.error().message();
    return;
  }
  facts.content_digest = fingerprint->content_digest();
  facts.layout_digest = fingerprint->layout_digest();
  facts.text = *std::move(text);
}
}  // namespace

NamespaceFacts read_namespace(const std::string& directory, const std::string& name,
                              std::uint32_t number, const ExtentTable& table) {
  NamespaceFacts facts;
  facts.number = number;
  facts.directory = name;
  const std::string path = directory + "/" + name;
  read_text(path + "/fingerprint.txt", facts);
  if (const auto told = ask_frames(directory, facts, table);
      told && *told != Digests{facts.content_digest, facts.layout_digest}) {
    if (facts.text_problem.empty()) facts.text_problem = "it says other than the frames do";
    facts.text.clear();
    facts.content_digest = told->content;
    facts.layout_digest = told->layout;
  }
  if (const auto used = read_file(path + "/used.txt", 1_KiB)) {
    facts.used_seconds = used_seconds_of(*used);
  }
  return facts;
}

}  // namespace terrace::tier::disk
