#include <fcntl.h>

#include <algorithm>

#include "terrace/base/file.h"
#include "terrace/tier/disk/key_tally_internal.h"
#include "terrace/tier/disk/shape_finder_internal.h"

namespace terrace::tier::disk {

namespace {
// Frames that are asked for the name of one key: where so many are damaged, a name helps nobody.
constexpr int kMostAsked = 64;
}  // namespace

void KeyTally::add(const SlotRecord& record) {
  if (!record.key_tag) {
    ++plain_blocks_;
    return;
  }
  KeyUse& use = uses_[*record.key_tag];
  use.tag = *record.key_tag;
  ++use.blocks;
}

void KeyTally::name(const KeyId& id) {
  const auto found = uses_.find(id.tag());
  if (found != uses_.end() && found->second.id.empty()) found->second.id = id.hex();
}

bool KeyTally::is_named() const {
  return std::ranges::none_of(uses_, [](const auto& item) { return item.second.id.empty(); });
}

void KeyTally::read_names(const std::string& directory, const std::string& name,
                          std::uint32_t number, const ExtentTable& table) {
  if (is_named()) return;
  const auto data = open_regular_file(directory + "/0.slots", O_RDONLY | O_NOFOLLOW);
  if (!data) return;
  const auto shape = find_shape(directory, name, number, table, data->get());
  if (!shape) return;
  std::map<std::uint16_t, int> asked;
  const HeaderPages pages(data->get());
  (void)scan_meta(directory, name, number, table, [&](const SealedSlot& sealed) {
    const SlotRecord& record = sealed.record;
    const bool is_placed = record.group < shape->frame_bytes.size() &&
                           shape->frame_bytes[record.group] > 0 && record.key_tag.has_value();
    if (!is_placed) return true;
    const auto use = uses_.find(*record.key_tag);
    if (use == uses_.end() || !use->second.id.empty()) return true;
    if (++asked[*record.key_tag] > kMostAsked) return true;
    const auto frame = pages.read(shape->offset(record.group, sealed.slot, 0));
    if (frame && frame->hash == record.hash && frame->generation == Generation(record.generation) &&
        frame->era == sealed.era && frame->codec == wire::FrameCodec::kAes256Gcm) {
      this->name(frame->seal.key);
    }
    return !is_named();
  });
}

KeyUses KeyTally::take() && {
  KeyUses all;
  all.plain_blocks = plain_blocks_;
  for (auto& [tag, use] : uses_) {
    if (ring_ != nullptr) {
      for (const KeyRing::Key& key : ring_->keys()) {
        // Owners go by the tag, too, until they read a frame.
        const bool is_it = use.id.empty() ? key.id.tag() == tag : key.id.hex() == use.id;
        use.is_at_hand = use.is_at_hand || is_it;
      }
    }
    all.keys.push_back(std::move(use));
  }
  return all;
}

}  // namespace terrace::tier::disk
