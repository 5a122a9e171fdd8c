#include "terrace/manager/block_manager.h"
#include "terrace/manager/request_internal.h"

namespace terrace::manager {

namespace {

// As the hash sees it (docs/formats/sequence-hash.md): salt and LoRA act from the first block on
// through the chain, an item enters every block that it overlaps. Written without overflow.
bool enters(const ExtraKey& key, std::uint64_t first_token, std::uint64_t token_count) {
  if (key.kind != ExtraKey::Kind::kMultimodal) return first_token == 0;
  if (key.first_token >= first_token) {
    return key.token_count > 0 && key.first_token - first_token < token_count;
  }
  return key.token_count > first_token - key.first_token;
}

void add_extra_keys(const Request& request, std::uint64_t first_token, std::uint64_t token_count,
                    Event& event) {
  for (const ExtraKey& key : request.extra_keys) {
    if (!enters(key, first_token, token_count)) continue;
    EventKey told{.kind = key.kind, .identity = key.identity};
    if (key.kind == ExtraKey::Kind::kMultimodal) {
      told.offset = static_cast<std::int64_t>(key.first_token - first_token);
    }
    event.extra_keys.push_back(std::move(told));
  }
}

}  // namespace

std::unique_ptr<Request> make_request(RequestId id, const RequestOptions& options,
                                      const Options& made_for) {
  auto request = std::make_unique<Request>(
      id, made_for.layout.block_tokens,
      options.is_unkeyable ? std::vector<ExtraKey>{} : options.extra_keys);
  request->name = Label(options.name);
  request->is_keyed = !options.is_unkeyable;
  request->can_load = options.can_load;
  request->can_store = options.can_store;
  request->prompt_blocks = options.prompt_tokens / made_for.layout.block_tokens;
  request->ledger.request = id;
  request->ledger.prompt = options.prompt_tokens;
  if (!request->is_keyed) {
    request->unkeyable = Label(options.unkeyable);
    request->ledger.first_miss = MissReason::kUnkeyable;
    return request;
  }
  request->chain.append(options.tokens);
  if (made_for.has_events) {
    request->tokens.assign(options.tokens.begin(), options.tokens.end());
    request->extra_keys = options.extra_keys;
  }
  return request;
}

Event describe(const Request& request, GroupId group, std::uint64_t block, Tokens block_tokens) {
  const auto hashes = request.chain.hashes();
  Event event{.group = group, .hash = hashes[block], .alias = request.alias(block)};
  if (block > 0) {
    event.parent = hashes[block - 1];
    event.parent_alias = request.alias(block - 1);
  }
  const std::uint64_t count = block_tokens.value();
  const std::uint64_t first = block * count;
  if (first + count <= request.tokens.size()) {
    const auto from = request.tokens.begin() + static_cast<std::ptrdiff_t>(first);
    event.tokens.assign(from, from + static_cast<std::ptrdiff_t>(count));
    add_extra_keys(request, first, count, event);
  }
  return event;
}

}  // namespace terrace::manager
