#include "terrace/trace/reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zstd.h>

#include "terrace/base/file.h"
#include "terrace/testing/scratch_directory.h"
#include "terrace/trace/optimum.h"

namespace terrace::trace {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kLines =
    R"({"timestamp": 3000, "input_length": 1000, "output_length": 1, "hash_ids": [0, 1]})"
    "\n"
    R"({"timestamp": 0, "input_length": 1500, "output_length": 1, "hash_ids": [0, 2, 3]})"
    "\n\n";

constexpr const char* kConversation = R"({"block_size": 64, "requests": [
  {"t": 1.5, "type": "n", "in": 140, "out": 3, "hash_ids": [1, 2]},
  {"t": 2, "type": "subagent", "requests": [
    {"t": 0.25, "type": "n", "in": 130, "out": 3, "hash_ids": [1, 9]}]},
  {"t": 4, "type": "n", "in": 300, "out": 3, "hash_ids": [1, 2, 3, 4]}]})";

std::string packed(std::string_view text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 1));
  return out;
}

std::string tar_of(const std::string& name, const std::string& content) {
  std::string header(512, '\0');
  header.replace(0, name.size(), name);
  std::string octal(11, '0');
  for (std::size_t left = content.size(), i = 11; left > 0; left /= 8) {
    octal[--i] = static_cast<char>('0' + left % 8);
  }
  header.replace(124, 11, octal);
  header[156] = '0';
  header.replace(257, 5, "ustar");
  return header + content + std::string((512 - content.size() % 512) % 512, '\0');
}

const std::string kTarEnd(1024, '\0');

class ReaderTest : public ::testing::Test {
 protected:
  Result<Workload> read(const std::string& name, const std::string& bytes,
                        const ReadOptions& options = {}) {
    const std::string path = scratch_.path() + "/" + name;
    EXPECT_TRUE(write_file_atomic(path, bytes).is_ok());
    return read_workload(path, options);
  }
  std::string refusal(const std::string& name, const std::string& bytes,
                      const ReadOptions& options = {}) {
    const auto read_it = read(name, bytes, options);
    return read_it ? "accepted" : read_it.error().message();
  }

 private:
  testing::ScratchDirectory scratch_;
};

std::vector<std::uint32_t> chain(const Workload& workload, std::size_t request) {
  std::vector<std::uint32_t> blocks;
  workload.chain(workload.requests()[request], blocks);
  return blocks;
}

TEST_F(ReaderTest, LinesComeByTimeAndShareTheirPrefixes) {
  for (const std::string& bytes : {std::string(kLines), packed(kLines)}) {
    const auto workload = read("a.jsonl", bytes, {.rate = 2});
    ASSERT_TRUE(workload) << workload.error().message();
    ASSERT_EQ(workload->requests().size(), 2U);
    EXPECT_EQ(workload->unique_blocks(), 4U);
    EXPECT_EQ(workload->references(), 5U);
    EXPECT_THAT(chain(*workload, 0), ElementsAre(0, 2, 3));
    EXPECT_THAT(chain(*workload, 1), ElementsAre(0, 1));
    EXPECT_EQ(workload->requests()[1].at, milliseconds(1500));
  }
}

TEST_F(ReaderTest, SubAgentsAreRequestsOfTheirConversationByItsClock) {
  const auto workload = read("a.json", kConversation, {.window = Nanoseconds(0)});
  ASSERT_TRUE(workload) << workload.error().message();
  ASSERT_EQ(workload->requests().size(), 3U);
  EXPECT_EQ(workload->requests()[1].at, milliseconds(2250));
  EXPECT_THAT(chain(*workload, 1), ElementsAre(0, 2));
  EXPECT_THAT(chain(*workload, 2), ElementsAre(0, 1, 3, 4));
}

TEST_F(ReaderTest, ConversationsOfAnArchiveShareNoBlock) {
  const std::string tar = tar_of("a.json", kConversation) + tar_of("note.txt", "x") +
                          tar_of("b.json", kConversation) + kTarEnd;
  const auto workload = read("a.tar.zst", packed(tar));
  ASSERT_TRUE(workload) << workload.error().message();
  EXPECT_EQ(workload->requests().size(), 6U);
  EXPECT_EQ(workload->unique_blocks(), 10U);
}

TEST_F(ReaderTest, TheSeedAndTheRateSayWhenAConversationStarts) {
  const auto first = [&](std::uint64_t seed, double rate) {
    return read("a.json", kConversation, {.seed = seed, .rate = rate}).value().requests()[0].at;
  };
  EXPECT_EQ(first(1, 1), first(1, 1));
  EXPECT_NE(first(1, 1), first(2, 1));
  const double start = static_cast<double>((first(1, 1) - milliseconds(1500)).value());
  const double dense = static_cast<double>((first(1, 4) - milliseconds(1500)).value());
  EXPECT_NEAR(start / dense, 4, 0.001);
}

TEST_F(ReaderTest, LargerBlocksAreMadeOfWholeSmallerOnes) {
  const auto workload = read("a.json", kConversation, {.block_tokens = 128});
  ASSERT_TRUE(workload) << workload.error().message();
  EXPECT_EQ(workload->references(), 4U);
  EXPECT_EQ(workload->unique_blocks(), 3U);
  EXPECT_THAT(refusal("a.json", kConversation, {.block_tokens = 100}), HasSubstr("64"));
  EXPECT_THAT(refusal("a.jsonl", kLines, {.block_tokens = 64}), HasSubstr("512"));
}

TEST_F(ReaderTest, AMalformedLineIsNamedWithItsNumber) {
  const std::string good(kLines);
  for (const char* const line :
       {"{\"timestamp\": 1", "[]", "7", "{}", R"({"timestamp": 1})",
        R"({"timestamp": "1", "hash_ids": [1]})", R"({"timestamp": -1, "hash_ids": [1]})",
        R"({"timestamp": 1e300, "hash_ids": [1]})", R"({"timestamp": 1, "hash_ids": [-1]})",
        R"({"timestamp": 1, "hash_ids": ["a"]})", "\xff\xfe"}) {
    EXPECT_THAT(refusal("bad.jsonl", good + line + "\n"),
                AllOf(HasSubstr("bad.jsonl:4: "), HasSubstr("take that out")))
        << line;
  }
}

TEST_F(ReaderTest, ADamagedConversationIsNamedWithItsMemberAndLine) {
  const std::string cut = std::string(kConversation).substr(0, 150);
  EXPECT_THAT(refusal("bad.json", cut), HasSubstr("bad.json:4: no JSON"));
  EXPECT_THAT(refusal("bad.tar", tar_of("b.json", cut) + kTarEnd),
              HasSubstr("bad.tar(b.json):4: no JSON"));
  EXPECT_THAT(refusal("bad.json", R"({"requests": [{"t": 1}]})"),
              AllOf(HasSubstr("request 1"), HasSubstr("hash_ids")));
  EXPECT_THAT(refusal("bad.json", R"({"requests": [{"hash_ids": []}]})"), HasSubstr("'t'"));
  EXPECT_THAT(refusal("bad.json", "{}"), HasSubstr("no conversation"));
}

TEST_F(ReaderTest, ANumberBeyondAllNumbersIsRefused) {
  EXPECT_THAT(refusal("bad.json", R"({"requests": [{"t": 1e999, "hash_ids": [1]}]})"),
              AllOf(HasSubstr("bad.json:1: "), HasSubstr("too large")));
}

TEST_F(ReaderTest, ClocksThatBeganIn1970AreRead) {
  const auto workload = read("a.jsonl",
                             R"({"timestamp": 1753000002000, "hash_ids": [1]})"
                             "\n"
                             R"({"timestamp": 1753000000000, "hash_ids": [1, 2]})",
                             {.rate = 2});
  ASSERT_TRUE(workload) << workload.error().message();
  EXPECT_EQ(workload->requests()[0].at, Nanoseconds(0));
  EXPECT_EQ(workload->requests()[1].at, seconds(1));
}

TEST_F(ReaderTest, TimesThatNoClockHoldsAreRefused) {
  const std::string far = std::string(kLines) + R"({"timestamp": 3e12, "hash_ids": [1]})";
  EXPECT_TRUE(read("a.jsonl", far));
  EXPECT_THAT(refusal("a.jsonl", far, {.rate = 0.001}),
              AllOf(HasSubstr("a.jsonl: "), HasSubstr("rate of 0.001"), HasSubstr("larger")));
  EXPECT_FALSE(read("a.json", kConversation, {.window = seconds(60'000'000), .rate = 0.001}));
  std::string nested = R"({"t": 3e9, "hash_ids": [1]})";
  for (int i = 0; i < 4; ++i) {
    nested.insert(0, R"({"t": 3e9, "type": "subagent", "requests": [)").append("]}");
  }
  EXPECT_THAT(refusal("a.json", R"({"block_size": 64, "requests": [)" + nested + "]}"),
              HasSubstr("more than a century"));
}

TEST_F(ReaderTest, MembersOfAnArchiveMayBePackedThemselves) {
  const auto workload = read("a.tar", tar_of("a.json.zst", packed(kConversation)) +
                                          tar_of("b.json", kConversation) + kTarEnd);
  ASSERT_TRUE(workload) << workload.error().message();
  EXPECT_EQ(workload->requests().size(), 6U);
}

// Else conversations would be left out, and nobody told.
TEST_F(ReaderTest, NamesThatAreLongerThanATarHeaderAreWholeNames) {
  const std::string folder(95, 'x');
  const std::string name = folder + "/conversation.json";
  const auto with = [&](char type, const std::string& content) {
    std::string header = tar_of("long", content);
    header[156] = type;
    return header + tar_of(name.substr(0, 100), kConversation) + kTarEnd;
  };
  const std::string path = "path=" + name + "\n";
  const std::string pax = "22 mtime=1753000000.5\n" + std::to_string(path.size() + 4) + " " + path;
  for (const std::string& tar : {with('L', name + '\0'), with('x', pax)}) {
    const auto workload = read("a.tar", tar);
    ASSERT_TRUE(workload) << workload.error().message();
    EXPECT_EQ(workload->requests().size(), 3U);
  }
  for (const char* const wrong : {"", "9999 path=a.json\n", "2 \n", "x", "0 path=a.json\n"}) {
    EXPECT_THAT(refusal("a.tar", with('x', wrong)), HasSubstr("no .json")) << wrong;
  }
}

TEST_F(ReaderTest, TornFilesAreRefusedAtEachByte) {
  const std::string whole = packed(tar_of("a.json", kConversation) + kTarEnd);
  for (std::size_t bytes = 4; bytes < whole.size(); ++bytes) {
    EXPECT_THAT(refusal("cut.tar.zst", whole.substr(0, bytes)),
                AllOf(HasSubstr("cut.tar.zst: "), HasSubstr("get the file again")))
        << bytes;
  }
  const std::string tar = tar_of("a.json", kConversation) + kTarEnd;
  for (const std::size_t bytes : {std::size_t{512}, std::size_t{600}, tar.size() - 1024}) {
    EXPECT_THAT(refusal("cut.tar", tar.substr(0, bytes)), HasSubstr("get the file again"));
  }
  std::string flipped = tar;
  flipped[130] = 'x';
  EXPECT_THAT(refusal("bad.tar", flipped), HasSubstr("no size"));
}

TEST_F(ReaderTest, WhatHoldsNoRequestIsRefused) {
  EXPECT_THAT(refusal("empty.jsonl", ""), HasSubstr("no request"));
  EXPECT_THAT(refusal("a.tar", tar_of("note.txt", "x") + kTarEnd), HasSubstr("no .json"));
  EXPECT_FALSE(read_workload("/nowhere/a.jsonl", {}));
  EXPECT_FALSE(read("a.jsonl", kLines, {.rate = 0}));
}

TEST_F(ReaderTest, SubAgentsThatNestWithoutEndAreRefused) {
  const auto nested = [](int depth) {
    std::string text = R"({"block_size": 64, "requests": [)";
    for (int i = 0; i < depth; ++i) text += R"({"t": 0, "type": "subagent", "requests": [)";
    for (int i = 0; i < depth; ++i) text += "]}";
    return text + "]}";
  };
  EXPECT_THAT(refusal("a.json", nested(16)), Not(HasSubstr("nest deeper")));
  EXPECT_THAT(refusal("b.json", nested(17)), HasSubstr("sub-agents nest deeper than 16"));
  EXPECT_THAT(refusal("c.json", nested(100'000)), HasSubstr("sub-agents nest deeper than 16"));
}

TEST_F(ReaderTest, TellsHowAnswersEndedAndHowLongTheyWere) {
  const Workload lines =
      read("one.jsonl", R"({"timestamp": 0, "output_length": 700, "hash_ids": [0]})"
                        "\n"
                        R"({"timestamp": 1, "output_length": -1, "hash_ids": [0]})"
                        "\n"
                        R"({"timestamp": 2, "hash_ids": [0]})")
          .value();
  EXPECT_EQ(lines.requests()[0].answer_tokens, 700U);
  EXPECT_EQ(lines.requests()[1].answer_tokens, 0U);
  EXPECT_EQ(lines.requests()[2].answer_tokens, 0U);
  const Workload conversation = read("one.json", R"({"block_size": 64, "requests": [
      {"t": 1, "out": 3, "stop": "tool_use", "hash_ids": [1]},
      {"t": 2, "out": 9, "stop": "end_turn", "hash_ids": [1]},
      {"t": 3, "stop": "", "hash_ids": [1]}, {"t": 4, "stop": 5, "hash_ids": [1]}]})")
                                    .value();
  EXPECT_EQ(conversation.requests()[1].answer_tokens, 9U);
  const policy::Ending endings[] = {policy::Ending::kToolCall, policy::Ending::kDone,
                                    policy::Ending::kUnknown, policy::Ending::kUnknown};
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(conversation.requests()[i].ending, endings[i]) << i;
  }
}

// A prompt of whole blocks of 64 tokens, 256 bytes each, named by letters.
std::string text_line(std::uint64_t microseconds, const std::string& blocks,
                      const std::string& rest = "") {
  std::string text;
  for (const char block : blocks) text += std::string(256, block);
  return R"({"timestamp": )" + std::to_string(microseconds) + R"(, "input": ")" + text + rest +
         R"(", "output": "four", "session_id": "x"})" + "\n";
}

TEST_F(ReaderTest, TextsShareTheBlocksOfTheirEqualBeginnings) {
  const std::string one = text_line(1'760'995'991'000'000, "ab", "the rest");
  const std::string other = text_line(1'760'995'993'000'000, "ac") + "\n";
  const std::string archive =
      tar_of("a/1.openai_chat.jsonl", one) + tar_of("a/2.jsonl.zst", packed(other)) + kTarEnd;
  for (const auto& [name, bytes] :
       {std::pair{"a.jsonl", one + other}, {"a.tar", archive}, {"a.tar.zst", packed(archive)}}) {
    SCOPED_TRACE(name);
    const auto workload = read(name, bytes, {.rate = 2});
    ASSERT_TRUE(workload) << workload.error().message();
    ASSERT_EQ(workload->requests().size(), 2U);
    EXPECT_EQ(workload->block_tokens(), 64U);
    const Request& first = workload->requests()[0];
    EXPECT_EQ(first.at, Nanoseconds(0));
    EXPECT_EQ(first.prompt_tokens, 130U);
    EXPECT_EQ(first.answer_tokens, 1U);
    EXPECT_EQ(workload->requests()[1].at, seconds(1));
    const auto before = chain(*workload, 0);
    const auto after = chain(*workload, 1);
    ASSERT_EQ(before.size(), 2U);
    ASSERT_EQ(after.size(), 2U);
    EXPECT_EQ(before[0], after[0]);
    EXPECT_NE(before[1], after[1]);
  }
}

TEST_F(ReaderTest, LengthsAreReadAsPromptsThatShareNothing) {
  const std::string csv =
      "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
      "2023-11-16 18:15:46.6805900,374,44\r\n"
      "2023-11-16 18:15:50.6805900,100,109";
  const auto workload = read("azure.csv.zst", packed(csv), {.block_tokens = 100});
  ASSERT_TRUE(workload) << workload.error().message();
  ASSERT_EQ(workload->requests().size(), 2U);
  EXPECT_EQ(workload->requests()[1].at, seconds(4));
  EXPECT_EQ(workload->requests()[0].answer_tokens, 44U);
  EXPECT_EQ(chain(*workload, 0).size(), 3U);
  EXPECT_EQ(workload->unique_blocks(), 4U);
}

TEST_F(ReaderTest, WhatIsNoTextOrNoLengthIsNamedWithItsLine) {
  const std::string good = text_line(1, "a");
  EXPECT_THAT(refusal("a.jsonl", good + R"({"timestamp": 1, "input": 7})"),
              AllOf(HasSubstr("a.jsonl:2:"), HasSubstr("'input'")));
  EXPECT_THAT(refusal("a.jsonl", good + R"({"timestamp": -1, "input": "x"})"),
              AllOf(HasSubstr("a.jsonl:2:"), HasSubstr("'timestamp'")));
  EXPECT_THAT(refusal("a.jsonl", good + "{"), HasSubstr("a.jsonl:2: no JSON object"));
  EXPECT_THAT(refusal("a.jsonl", text_line(1, "", "short")), HasSubstr("no request with a block"));
  const std::string header = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
  for (const char* const line :
       {"2023-11-16,1,1", "2023-02-30 10:00:00,1,1", "2023-11-16 25:00:00,1,1",
        "2023-257-16 10:00:00,1,1", "2023-11-16 10:00:00.12345678901,1,1",
        "2023-11-16 10:00:00.,1,1", "x", ",,"}) {
    EXPECT_THAT(refusal("a.csv", header + line), HasSubstr("a.csv:2: no time")) << line;
  }
  EXPECT_THAT(refusal("a.csv", header + "2023-11-16 10:00:00,16777216,1", {.block_tokens = 1}),
              AllOf(HasSubstr("a.csv:2:"), HasSubstr("--block-tokens")));
  for (const char* const line :
       {"2023-11-16 10:00:00,-1,1", "2023-11-16 10:00:00,1", "2023-11-16 10:00:00,1,1,1",
        "2023-11-16 10:00:00,99999999999,1", "2023-11-16 10:00:00,4294967295,1"}) {
    EXPECT_THAT(refusal("a.csv", header + line), HasSubstr("a.csv:2: no two numbers")) << line;
  }
}

}  // namespace
}  // namespace terrace::trace
