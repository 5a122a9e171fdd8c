// Encrypted packs: shared by who has the key, missed by who has not, and never opened in another's
// place.
#include <gmock/gmock.h>

#include <algorithm>
#include <cstring>

#include "terrace/base/thread.h"
#include "terrace/testing/crypt.h"
#include "terrace/tier/object/object_tier_rig.h"
#include "terrace/wire/frame.h"
#include "terrace/wire/pack.h"

namespace terrace::tier::object {
namespace {

using ::testing::HasSubstr;
using testing::id_of;
using testing::ring_of;
using testing::SlowHands;

class ObjectCryptTest : public ObjectTierRig {
 protected:
  std::unique_ptr<ObjectTier> with(const std::string& keys) {
    options_.crypt.ring = ring_of(keys);
    return open();
  }
  void put(ObjectTier& tier, std::uint64_t packs) {
    for (std::uint64_t pack = 0; pack < packs; ++pack) {
      ASSERT_EQ(write(tier, chain_, memory_, pack).text(), Status().text()) << pack;
    }
  }
  // How many leading blocks come, right to the last byte.
  std::uint64_t right_blocks(ObjectTier& tier) {
    const std::uint64_t blocks = probe(tier, chain_);
    for (std::uint64_t block = 0; block < blocks; ++block) {
      for (std::uint16_t group = 0; group < 2; ++group) {
        ChainMemory into(options_.layout, 1, 0);
        if (const Status status = read(tier, chain_[block], group, into.at(0, group));
            !status.is_ok()) {
          return block;
        }
        EXPECT_TRUE(ChainMemory::same(into.at(0, group), memory_.at(block, group))) << block;
        EXPECT_EQ(into.at(0, group).checksums, memory_.at(block, group).checksums);
      }
    }
    return blocks;
  }
  static double metric(ObjectTier& tier, const std::string& name) {
    struct Reader final : MetricVisitor {
      std::string wanted;
      double found = -1;
      void counter(std::string_view given, std::string_view, std::uint64_t value) override {
        if (given == wanted) found = static_cast<double>(value);
      }
      void gauge(std::string_view, std::string_view, double) override {}
    } reader;
    reader.wanted = name;
    tier.visit_metrics(reader);
    return reader.found;
  }

  std::vector<SequenceHash> chain_ = chain_of(1, 3 * kPackBlocks);
  ChainMemory memory_{options_.layout, 3 * kPackBlocks, 11};
};

TEST_F(ObjectCryptTest, WhoHasTheKeySharesThePacksAndNothingOfThemIsInClear) {
  const auto one = with("1");
  put(*one, 2);
  EXPECT_EQ(right_blocks(*with("1")), 2 * kPackBlocks);
  const std::vector<std::byte>& stored = object();
  for (std::uint64_t block = 0; block < 2 * kPackBlocks; ++block) {
    const std::byte* plain = memory_.at(block, 0).ranks[0].payload;
    EXPECT_EQ(std::search(stored.begin(), stored.end(), plain + 64, plain + 96), stored.end());
  }
  EXPECT_EQ(place_->objects.begin()->first.find("/n4k" + id_of('1') + "/") != std::string::npos,
            true)
      << place_->objects.begin()->first;
  EXPECT_EQ(one->key_ids(), id_of('1'));
}

TEST_F(ObjectCryptTest, WhoHasNoKeyOrAnotherOneMissesAndKeepsOwnPacksBesideThem) {
  put(*with("1"), 2);
  const auto none = with("");
  EXPECT_EQ(right_blocks(*none), 0U);
  put(*none, 1);
  EXPECT_EQ(right_blocks(*with("")), kPackBlocks);
  const auto other = with("2");
  EXPECT_EQ(right_blocks(*other), 0U);
  put(*other, 1);
  EXPECT_EQ(packs(), 4U);
  EXPECT_EQ(right_blocks(*with("1")), 2 * kPackBlocks);
  EXPECT_TRUE(with("2")->problems().empty());
}

TEST_F(ObjectCryptTest, ARotationReadsOldPacksAndWritesThemAnewWithTheNewKey) {
  put(*with("1"), 2);
  const auto rotating = with("21");
  EXPECT_EQ(right_blocks(*rotating), 2 * kPackBlocks);
  put(*rotating, 1);
  EXPECT_EQ(write(*rotating, chain_, memory_, 0).code(), Code::kInvalid) << "there already";
  EXPECT_EQ(right_blocks(*with("21")), 2 * kPackBlocks) << "one pack of each key";
  EXPECT_EQ(right_blocks(*with("2")), kPackBlocks);
  EXPECT_EQ(right_blocks(*with("12")), 2 * kPackBlocks);
}

TEST_F(ObjectCryptTest, APackThatCannotBeAskedForUnderItsOtherNameNowIsNotLost) {
  put(*with("1"), 2);
  options_.get_bytes = 1;  // Each shard group by a request of its own.
  options_.queue.capacity = 3;
  const auto rotating = with("21");
  ASSERT_EQ(write(*rotating, chain_, memory_, 0).text(), Status().text());
  ASSERT_EQ(probe(*rotating, chain_), 2 * kPackBlocks);
  std::erase_if(place_->objects, [&](const auto& item) {
    return item.first.ends_with(chain_[3].hex() + ".pack") && item.first.contains(id_of('2'));
  });
  ASSERT_EQ(packs(), 2U);
  // The others are to be tried again when its first answer comes: the queue is full.
  place_->is_held = true;
  place_->fault = [&](const transfer::ObjectRequest& request) {
    const bool is_other = request.name.ends_with(chain_[7].hex() + ".pack");
    return is_other ? Status(Code::kUnavailable, "busy") : Status();
  };
  ChainMemory into(options_.layout, 2 * kPackBlocks, 0);
  for (const std::uint64_t block : {0, 4, 5, 6}) {
    ASSERT_TRUE(rotating
                    ->begin_read(block, GroupId(0), chain_[block], into.at(block, 0).ranks,
                                 transfer::IoClass::kTtftRead, kNoDeadline)
                    .is_ok());
  }
  EXPECT_TRUE(settle(*rotating).empty());
  place_->is_held = false;
  const auto done = settle(*rotating);
  ASSERT_EQ(done.size(), 1U);
  EXPECT_EQ(done[0].token, 0U);
  EXPECT_EQ(done[0].status.code(), Code::kExhausted) << done[0].status.text();
  EXPECT_EQ(counter(*rotating, "terrace_object_packs_total", "op=\"lost\""), 0U);
  EXPECT_TRUE(rotating->contains(GroupId(0), chain_[0]));
  place_->fault = {};
  pass(*rotating, 1);
  EXPECT_EQ(read(*rotating, chain_[0], 0, into.at(0, 0)).text(), Status().text());
}

TEST_F(ObjectCryptTest, APackOfAnOlderKeyIsKeptYoungUnderItsOwnName) {
  place_->wall_seconds = [this] { return clock_.wall_seconds(); };
  put(*with("1"), 1);
  clock_.advance(seconds(3 * 86'400));
  const auto rotating = with("21");
  EXPECT_EQ(right_blocks(*rotating), kPackBlocks);
  const auto is_touch = [](const std::string& text) {
    return text.starts_with("touch ") && text.contains(id_of('1'));
  };
  EXPECT_EQ(std::ranges::count_if(place_->asked, is_touch), 1);
  EXPECT_EQ(right_blocks(*rotating), kPackBlocks) << "forgotten under the name it does not have";
}

TEST_F(ObjectCryptTest, PlainPacksAreServedBesideAKeyOnlyIfThatIsAllowed) {
  put(*with(""), 2);
  EXPECT_EQ(right_blocks(*with("1")), 0U);
  options_.crypt.accepts_plain = true;
  const auto lenient = with("1");
  EXPECT_EQ(right_blocks(*lenient), 2 * kPackBlocks);
  put(*lenient, 3);
  EXPECT_EQ(right_blocks(*lenient), 3 * kPackBlocks);
}

TEST_F(ObjectCryptTest, AFlippedBitAnywhereInAFrameIsAMiss) {
  put(*with("1"), 1);
  const std::vector<std::byte> good = object();
  Rng rng(3);
  const std::size_t frames = wire::PackGeometry(options_.layout, kPackBlocks).footer_offset();
  for (int i = 0; i < 40; ++i) {
    const std::size_t at = rng.below(frames);
    object()[at] ^= static_cast<std::byte>(1U << rng.below(8));
    const auto tier = with("1");
    // Padding is nobody's: what is flipped there changes nothing.
    const std::uint64_t right = right_blocks(*tier);
    EXPECT_TRUE(right < kPackBlocks || metric(*tier, "terrace_object_corrupt_blocks_total") == 0)
        << at;
    EXPECT_EQ(metric(*tier, "terrace_object_forged_frames_total"), 0);
    object() = good;
  }
}

TEST_F(ObjectCryptTest, AFrameOfAnotherBlockDoesNotOpenThoughItsHeaderFits) {
  put(*with("1"), 1);
  std::vector<std::byte>& stored = object();
  const wire::PackGeometry pack(options_.layout, kPackBlocks);
  const std::size_t from = pack.shard_group(2, GroupId(0)).offset;
  const std::size_t to = pack.shard_group(1, GroupId(0)).offset;
  const std::size_t bytes = pack.frame_bytes(GroupId(0));
  std::copy_n(stored.begin() + static_cast<std::ptrdiff_t>(from), bytes,
              stored.begin() + static_cast<std::ptrdiff_t>(to));
  const std::span<std::byte, wire::kFrameHeaderBytes> page(stored.data() + to,
                                                           wire::kFrameHeaderBytes);
  auto header = wire::decode_frame(page);
  ASSERT_TRUE(header.has_value());
  header->hash = chain_[1];
  wire::encode(*header, page);
  const auto tier = with("1");
  EXPECT_EQ(right_blocks(*tier), 1U);
  EXPECT_EQ(metric(*tier, "terrace_object_forged_frames_total"), 2) << "it is read twice";
  EXPECT_THAT(tier->problems(), ::testing::ElementsAre(HasSubstr(id_of('1'))));
}

// Who may write to the bucket could otherwise plant blocks of his own under an encrypted name.
TEST_F(ObjectCryptTest, APlainPackUnderAnEncryptedNameIsDamage) {
  put(*with(""), 1);
  const std::vector<std::byte> plain = object();
  place_->objects.clear();
  put(*with("1"), 1);
  object() = plain;
  const auto tier = with("1");
  EXPECT_EQ(right_blocks(*tier), 0U);
  EXPECT_EQ(metric(*tier, "terrace_object_corrupt_blocks_total"), 1);
}

TEST_F(ObjectCryptTest, ADamagedPackStandsInTheWayOfNoOtherOfItsNames) {
  put(*with(""), 1);
  options_.crypt.accepts_plain = true;
  const auto tier = with("1");
  const auto flip = [&](const std::string& end) { object(end)[5000] ^= std::byte{1}; };
  const std::string plain = "n4/" + chain_[3].hex().substr(0, 2) + "/" + chain_[3].hex() + ".pack";
  ASSERT_EQ(write(*tier, chain_, memory_, 0).text(), Status().text());
  ASSERT_EQ(packs(), 2U);
  const std::string encrypted = "n4k" + id_of('1') + plain.substr(2);
  flip(encrypted);
  EXPECT_EQ(right_blocks(*tier), 0U);
  clock_.advance(seconds(2));
  EXPECT_EQ(right_blocks(*tier), kPackBlocks) << "the plain one";
  flip(plain);
  EXPECT_EQ(right_blocks(*tier), 0U);
  EXPECT_EQ(metric(*tier, "terrace_object_corrupt_blocks_total"), 2);
  // Put anew, known to be there, and gone: the damaged one is not read in its place.
  std::erase_if(place_->objects, [&](const auto& item) { return item.first.ends_with(encrypted); });
  ASSERT_EQ(write(*tier, chain_, memory_, 0).text(), Status().text());
  EXPECT_EQ(right_blocks(*tier), kPackBlocks);
  std::erase_if(place_->objects, [&](const auto& item) { return item.first.ends_with(encrypted); });
  ChainMemory into(options_.layout, 1, 0);
  EXPECT_EQ(read(*tier, chain_[0], 0, into.at(0, 0)).code(), Code::kNotFound);
  EXPECT_EQ(metric(*tier, "terrace_object_corrupt_blocks_total"), 2);
}

TEST_F(ObjectCryptTest, PacksAndReadsWaitForTheHandsThatEncryptThem) {
  put(*with("1"), 1);
  SlowHands hands;
  options_.crypt.hands = &hands;
  const auto tier = with("1");
  ASSERT_EQ(probe(*tier, chain_), kPackBlocks);
  ChainMemory into(options_.layout, 1, 0);
  ASSERT_TRUE(tier->begin_read(1, GroupId(0), chain_[0], into.at(0, 0).ranks,
                               transfer::IoClass::kTtftRead, kNoDeadline)
                  .is_ok());
  const auto second = std::span(chain_).subspan(kPackBlocks, kPackBlocks);
  ASSERT_TRUE(tier->begin_write(2, second, memory_.range(kPackBlocks, kPackBlocks)).is_ok());
  EXPECT_TRUE(settle(*tier).empty());
  EXPECT_EQ(hands.waiting(), 2U + kPackBlocks * 4U);
  EXPECT_EQ(packs(), 1U);
  hands.do_all();
  EXPECT_EQ(settle(*tier).size(), 2U);
  EXPECT_TRUE(ChainMemory::same(into.at(0, 0), memory_.at(0, 0)));
  EXPECT_EQ(packs(), 2U);
  EXPECT_TRUE(tier->is_idle());
}

TEST_F(ObjectCryptTest, StoppingEndsPacksThatAreBeingEncrypted) {
  SlowHands hands;
  options_.crypt.hands = &hands;
  const auto tier = with("1");
  for (std::uint64_t pack = 0; pack < 2; ++pack) {
    const auto hashes = std::span(chain_).subspan(pack * kPackBlocks, kPackBlocks);
    ASSERT_TRUE(
        tier->begin_write(pack, hashes, memory_.range(pack * kPackBlocks, kPackBlocks)).is_ok());
  }
  EXPECT_TRUE(settle(*tier).empty());
  tier->stop_writes();
  hands.do_all();
  const auto done = settle(*tier);
  ASSERT_EQ(done.size(), 2U);
  for (const ObjectDone& item : done) EXPECT_EQ(item.status.code(), Code::kClosed);
  EXPECT_TRUE(tier->is_idle());
  EXPECT_EQ(packs(), 0U);
}

}  // namespace
}  // namespace terrace::tier::object
