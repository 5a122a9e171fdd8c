// The disk tier's fixed-size records: whatever is accepted has exactly one form, but for the
// padding and reserved bytes that its checksum covers.
#include <array>
#include <cstdlib>
#include <cstring>

#include "terrace/tier/disk/format_internal.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace terrace::tier::disk;  // NOLINT(google-build-using-namespace)
  std::array<std::byte, kPageBytes> page{};
  std::memcpy(page.data(), data, std::min(size, page.size()));
  const std::span<std::byte, kPageBytes> all(page);
  (void)decode_volume(all);
  (void)decode_meta(all);
  (void)decode_account(all);
  (void)decode_learned(all);
  (void)decode_extent(all.first<kExtentRecordBytes>(), 0);
  // With its checksum made right the rest of a record gets past the door.
  auto record = all.first<kSlotRecordBytes>();
  const std::uint32_t crc = crc32c(record.first<60>());
  std::memcpy(record.data() + 60, &crc, sizeof crc);
  std::uint32_t slot = 0;
  std::memcpy(&slot, record.data() + 56, sizeof slot);
  const DecodedSlot decoded = decode_slot(record, slot);
  if (decoded.check == RecordCheck::kGood) {
    std::array<std::byte, kSlotRecordBytes> again{};
    encode(decoded.record, slot, again);
    if (std::memcmp(again.data(), record.data(), again.size()) != 0) std::abort();
  }
  return 0;
}
