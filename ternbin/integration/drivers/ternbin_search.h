/* Several texts at a time, and search with beams, on what ternbin.h opens. Needs the logarithm and power of the mathematical library.
 *
 *     void *room = malloc(ternbin_search_bytes(&core));
 *     status = ternbin_generate_texts(&core, room, ids, count, tokens, max_new_tokens, found); */
#ifndef TERNBIN_SEARCH_H
#define TERNBIN_SEARCH_H

#include "ternbin.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Texts of the program, and bytes of room that decoding them needs. */
size_t ternbin_texts(const struct ternbin *core);
size_t ternbin_search_bytes(const struct ternbin *core);

/* Tokens after the start token of every text, greedily or by the search of the image. `ids`: those of all texts, `count` in all, one text
 * after the other; text t's tokens stand from `tokens + t * max_new_tokens` on, `found[t]` of them. `room`: aligned as malloc does. */
int ternbin_generate_texts(struct ternbin *core, void *room, const uint32_t *ids, size_t count, uint32_t *tokens, size_t max_new_tokens,
                           size_t *found);

#ifdef __cplusplus
}
#endif
#endif
