// A whole HTTP answer of a store, headers line by line and its body, as an answer to each request;
// and a credentials file.
#include <cstdlib>
#include <string>

#include "terrace/transfer/backends/s3/answer_internal.h"
#include "terrace/transfer/backends/s3/credentials_internal.h"

namespace {

using terrace::Code;
namespace transfer = terrace::transfer;
namespace s3 = terrace::transfer::s3;

void judge(const s3::Reply& reply, transfer::ObjectOp op) {
  std::byte memory[64]{};
  transfer::ObjectRequest request;
  request.op = op;
  request.name = op == transfer::ObjectOp::kList ? "a/" : "a/b";
  request.after = "page";
  if (op == transfer::ObjectOp::kGet) {
    request.offset = 5;
    request.pieces = {{memory, 10}};
  }
  const s3::Asked asked{request, op, "team/kv/", "http://host/bucket", 1'800'000'000};
  const transfer::ObjectAnswer answer = s3::judge(reply, asked);
  if (answer.status.message().size() > 4096) std::abort();
  if (answer.retry_after < terrace::Nanoseconds(0)) std::abort();
  if (!answer.status.is_ok()) return;
  // Nothing is ok without an HTTP status that says so, but what stands for it.
  const bool is_good = (reply.http >= 200 && reply.http <= 299) || reply.http == 412 ||
                       (op == transfer::ObjectOp::kRemove && reply.http == 404);
  if (!is_good || (answer.was_there && op != transfer::ObjectOp::kPut)) std::abort();
  if (op == transfer::ObjectOp::kGet && reply.http != 206) std::abort();
  if (answer.found.size() > transfer::kMostListed) std::abort();
  for (const transfer::ObjectInfo& info : answer.found) {
    if (!info.name.starts_with("a/") || !transfer::check_object_name(info.name).is_ok()) {
      std::abort();
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  s3::Reply reply;
  std::string_view rest = all;
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (line.empty()) break;
    reply.take_header(line);
  }
  reply.body = rest.substr(0, reply.body_limit);
  for (int op = 0; op < transfer::kObjectOpCount; ++op) {
    judge(reply, static_cast<transfer::ObjectOp>(op));
  }
  (void)s3::may_lack_conditions(reply);
  (void)s3::refuses_credentials(reply);
  const auto credentials = s3::parse_credentials(all, "default");
  if (!credentials && credentials.error().code() != Code::kRefused) std::abort();
  if (credentials && credentials->key_id.empty()) std::abort();
  return 0;
}
