#include "ternbin_search.h"

#include <math.h>
#include <string.h>

#include "ternbin_image.h"

#define DEAD (-(double)TERNBIN_DEAD_SCORE)
#define RANKED (TERNBIN_MAX_BEAMS * TERNBIN_MAX_LISTED)

struct candidate {
    uint32_t token;
    double logp;
};

/* A text's last token, and the node of what stands before it. */
struct node {
    uint32_t token, before;
};

/* A text that is being written, or has ended: its last node. */
struct text {
    double score;
    uint32_t node;
    int ended;
};

/* A continuation of a beam. */
struct next {
    double score;
    uint32_t beam, token;
};

/* The search for one text. With one beam it is greedy decoding. */
struct search {
    struct text running[TERNBIN_MAX_BEAMS], finished[TERNBIN_MAX_BEAMS];
    uint32_t feed[TERNBIN_MAX_BEAMS], parents[TERNBIN_MAX_BEAMS];
    uint64_t length, fed; /* tokens of the running texts; those of the prompt that were fed */
    uint32_t nodes;
    int done;
    struct node *node;
};

struct settings {
    const struct ternbin *core;
    uint32_t beams, candidates;
    uint64_t most, early, last, prompt; /* most: tokens of a text with the start token */
    double penalty;
};

static uint64_t positions(const struct ternbin *core) {
    return ternbin_word(core, TERNBIN_IMAGE_CALLS) - ternbin_word(core, TERNBIN_IMAGE_TEXTS);
}

/* Of the trees of all texts: a step adds a node for each beam that goes on, and one for each that ends. */
static uint64_t nodes(const struct ternbin *core) {
    const uint64_t steps = ternbin_word(core, TERNBIN_IMAGE_MAX_NEW_TOKENS), beams = ternbin_word(core, TERNBIN_IMAGE_BEAMS);
    return ternbin_word(core, TERNBIN_IMAGE_PROMPT) + 2 * beams * steps;
}

size_t ternbin_texts(const struct ternbin *core) { return (size_t)ternbin_word(core, TERNBIN_IMAGE_TEXTS); }

size_t ternbin_search_bytes(const struct ternbin *core) {
    const uint64_t texts = ternbin_word(core, TERNBIN_IMAGE_TEXTS), beams = texts * ternbin_word(core, TERNBIN_IMAGE_BEAMS);
    return (size_t)(texts * (sizeof(struct search) + nodes(core) * sizeof(struct node)) + positions(core) * beams);
}

static uint32_t node(struct search *search, uint32_t token, uint32_t before) {
    search->node[search->nodes] = (struct node){token, before};
    return search->nodes++;
}

static uint32_t token(const struct search *search, const struct text *text) { return search->node[text->node].token; }

static void begin(const struct settings *settings, struct search *search) {
    uint32_t last = 0;
    for (uint64_t i = 0; i < settings->prompt; i++) last = node(search, ternbin_prompt(settings->core, i), last);
    for (uint32_t beam = 0; beam < settings->beams; beam++) {
        search->running[beam] = (struct text){beam ? DEAD : 0, last, 0};
        search->finished[beam] = (struct text){DEAD, last, 0};
        search->parents[beam] = beam;
        search->feed[beam] = token(search, search->running);
    }
    search->length = settings->prompt;
    search->done = search->length >= settings->most;
    if (settings->beams == 1 && settings->prompt > 1) search->done |= ternbin_is_end(settings->core, token(search, search->running));
    if (search->done) search->finished[0] = search->running[0];
}

static int full(const struct settings *settings, const struct search *search) {
    for (uint32_t beam = 0; beam < settings->beams; beam++)
        if (!search->finished[beam].ended) return 0;
    return 1;
}

/* Insert behind those that are as good; `count` are there, at most `most` stay. */
static void keep(struct text *list, uint32_t *count, uint32_t most, struct text text) {
    uint32_t at = *count;
    while (at && list[at - 1].score < text.score) at--;
    if (at == most) return;
    if (*count < most) ++*count;
    memmove(list + at + 1, list + at, (*count - 1 - at) * sizeof *list);
    list[at] = text;
}

static int better(const struct next *a, const struct next *b) {
    if (a->score != b->score) return a->score > b->score;
    return a->beam != b->beam ? a->beam < b->beam : a->token < b->token;
}

static uint32_t rank(const struct settings *settings, const struct search *search, const struct candidate *lists, uint32_t listed,
                     struct next *ranked) {
    const uint64_t ends = ternbin_word(settings->core, TERNBIN_IMAGE_ENDS);
    const uint64_t most = (ends ? 1 + ends : 2) * settings->beams;
    uint32_t count = 0;
    for (uint32_t i = 0; i < settings->beams * listed; i++) {
        const uint32_t beam = i / listed;
        const struct next new = {search->running[beam].score + lists[i].logp, beam, lists[i].token};
        uint32_t at = count;
        while (at && better(&new, &ranked[at - 1])) at--;
        if (at == most) continue;
        if (count < most) count++;
        memmove(ranked + at + 1, ranked + at, (count - 1 - at) * sizeof *ranked);
        ranked[at] = new;
    }
    return count;
}

static void greedy_step(const struct settings *settings, struct search *search, uint32_t best) {
    struct text *text = search->running;
    text->node = node(search, best, text->node);
    search->length++;
    search->done = search->length == settings->most || ternbin_is_end(settings->core, best);
    search->finished[0] = *text;
}

static void beam_step(const struct settings *settings, struct search *search, const struct candidate *lists, uint32_t listed) {
    struct next ranked[RANKED];
    const uint32_t beams = settings->beams, count = rank(settings, search, lists, listed, ranked);
    const double divisor = pow((double)search->length, settings->penalty);
    struct text going[TERNBIN_MAX_BEAMS];
    uint32_t goes = 0, all = 0;
    search->length++;
    for (uint32_t i = 0; i < count; i++) all += !(search->length == settings->most || ternbin_is_end(settings->core, ranked[i].token));
    uint32_t kept = beams;
    for (uint32_t i = 0; i < count; i++) {
        const struct next *next = &ranked[i];
        const int ended = search->length == settings->most || ternbin_is_end(settings->core, next->token);
        const int goes_on = goes < beams && (!ended || !all), finishes = ended && i < beams;
        if (!goes_on && !finishes) continue;
        const uint32_t place = node(search, next->token, search->running[next->beam].node);
        if (finishes) keep(search->finished, &kept, beams, (struct text){next->score / divisor, place, 1});
        if (goes_on) {
            search->parents[goes] = next->beam;
            going[goes++] = (struct text){next->score, place, ended};
        }
    }
    for (; goes < beams; goes++) {
        search->parents[goes] = search->parents[goes - 1];
        going[goes] = (struct text){DEAD, going[goes - 1].node, 0};
    }
    memcpy(search->running, going, beams * sizeof *going);
    const int to_the_end = settings->early == TERNBIN_EARLY_NEVER && settings->penalty > 0;
    const double expected = (double)((to_the_end ? settings->most : search->length) - 1);
    const int ended = full(settings, search);
    const double worst = ended ? search->finished[beams - 1].score : DEAD;
    const int may_improve = search->running[0].score / pow(expected, settings->penalty) > worst;
    search->done = search->length == settings->most || !may_improve || (settings->early == TERNBIN_EARLY_FULL && ended);
}

static void step(const struct settings *settings, struct search *search, const struct candidate *lists, uint32_t listed) {
    if (settings->beams == 1)
        greedy_step(settings, search, lists[0].token);
    else
        beam_step(settings, search, lists, listed);
}

/* Whether the text is done; a last possible token that is prescribed is not asked for. If not, what to feed. */
static void prepare(const struct settings *settings, struct search *search) {
    if (!search->done && settings->last != TERNBIN_NONE && search->length == settings->most - 1) {
        struct candidate last[TERNBIN_MAX_BEAMS];
        for (uint32_t beam = 0; beam < settings->beams; beam++) last[beam] = (struct candidate){(uint32_t)settings->last, 0};
        step(settings, search, last, 1);
    }
    for (uint32_t beam = 0; beam < settings->beams; beam++) {
        if (search->done)
            search->parents[beam] = beam;
        else if (search->fed + 1 < settings->prompt)
            search->feed[beam] = ternbin_prompt(settings->core, search->fed);
        else
            search->feed[beam] = token(search, &search->running[beam]);
    }
}

/* Tokens, and which keys each beam sees: its own of this position and, back along its parents, those before. */
static void feed(struct ternbin *core, const struct search *searches, uint8_t *parents, uint64_t position) {
    const uint64_t texts = ternbin_word(core, TERNBIN_IMAGE_TEXTS), beams = ternbin_word(core, TERNBIN_IMAGE_BEAMS);
    const uint64_t count = texts * beams, target = ternbin_word(core, TERNBIN_IMAGE_TARGET) + position * count * ternbin_word(core, TERNBIN_IMAGE_BEAT);
    uint8_t *masks = core->io.memory + ternbin_word(core, TERNBIN_IMAGE_MASKS);
    memset(masks, 0, (size_t)(2 * count * (position + 1)));
    for (uint64_t beam = 0; beam < count; beam++) {
        const struct search *search = &searches[beam / beams];
        parents[position * count + beam] = (uint8_t)(beam / beams * beams + search->parents[beam % beams]);
        ternbin_put(core, target + beam * ternbin_word(core, TERNBIN_IMAGE_BEAT), search->feed[beam % beams]);
    }
    for (uint64_t beam = 0; beam < count; beam++) {
        uint64_t slot = beam;
        for (uint64_t earlier = position + 1; earlier--; slot = parents[earlier * count + slot])
            masks[2 * (earlier * count + slot)] |= (uint8_t)(1u << beam);
    }
}

/* The best tokens of a beam. An entry of a list is a token and a number of 64 bits; that of the last is the sum of all. */
static void list(const struct ternbin *core, uint64_t position, uint64_t beam, struct candidate *candidates, uint32_t count) {
    const uint64_t beat = ternbin_word(core, TERNBIN_IMAGE_BEAT), listed = ternbin_word(core, TERNBIN_IMAGE_LISTED);
    const uint64_t beams = ternbin_word(core, TERNBIN_IMAGE_TEXTS) * ternbin_word(core, TERNBIN_IMAGE_BEAMS);
    const uint8_t *entry = core->io.memory + ternbin_word(core, TERNBIN_IMAGE_LISTS) + (position * beams + beam) * (listed + 1) * 3 * beat;
    const uint8_t *last = entry + listed * 3 * beat;
    const double total = (double)(ternbin_load(last + beat, 4) | ternbin_load(last + 2 * beat, 4) << 32);
    const double octaves = (double)(int32_t)ternbin_load(last, 4) + log2(total) - (double)TERNBIN_SUM_POINT;
    const volatile double normaliser = octaves * log(2.0); /* volatile: not joined with the subtraction below, which rounds otherwise */
    for (uint32_t i = 0; i < count; i++, entry += 3 * beat) {
        const int64_t logit = (int64_t)(ternbin_load(entry + beat, 4) | ternbin_load(entry + 2 * beat, 4) << 32);
        const int scale = (int)ternbin_word(core, TERNBIN_IMAGE_LOGIT_SCALE);
        candidates[i].token = (uint32_t)ternbin_load(entry, 4);
        candidates[i].logp = ldexp((double)(logit >> ternbin_word(core, TERNBIN_IMAGE_LOGIT_SHIFT)), -scale) - normaliser;
    }
}

/* The text without its start token. */
static size_t tell(const struct search *search, uint32_t *tokens, size_t most) {
    size_t length = 0, count = 0;
    for (uint32_t at = search->finished[0].node; at; at = search->node[at].before) length++;
    for (uint32_t at = search->finished[0].node; at; at = search->node[at].before, count++)
        if (length - 1 - count < most) tokens[length - 1 - count] = search->node[at].token;
    return length < most ? length : most;
}

int ternbin_generate_texts(struct ternbin *core, void *room, const uint32_t *ids, size_t count, uint32_t *tokens, size_t max_new_tokens,
                           size_t *found) {
    const uint64_t texts = ternbin_word(core, TERNBIN_IMAGE_TEXTS), penalty = ternbin_word(core, TERNBIN_IMAGE_LENGTH_PENALTY);
    if (ternbin_word(core, TERNBIN_IMAGE_LISTED) == 0) return ternbin_generate(core, ids, count, tokens, max_new_tokens, found);
    struct settings settings = {
        .core = core,
        .beams = (uint32_t)ternbin_word(core, TERNBIN_IMAGE_BEAMS),
        .candidates = (uint32_t)ternbin_word(core, TERNBIN_IMAGE_CANDIDATES),
        .most = max_new_tokens + 1,
        .early = ternbin_word(core, TERNBIN_IMAGE_EARLY),
        .last = ternbin_word(core, TERNBIN_IMAGE_LAST),
        .prompt = ternbin_word(core, TERNBIN_IMAGE_PROMPT),
    };
    memcpy(&settings.penalty, &penalty, sizeof penalty);
    struct search *searches = room;
    struct node *node = (struct node *)(searches + texts);
    uint8_t *parents = (uint8_t *)(node + texts * nodes(core));
    for (uint64_t text = 0; text < texts; text++) found[text] = 0;
    int status = ternbin_read_texts(core, ids, count, max_new_tokens);
    if (status != TERNBIN_OK) return status;
    for (uint64_t text = 0; text < texts; text++) {
        searches[text] = (struct search){.node = node + text * nodes(core)};
        begin(&settings, &searches[text]);
    }
    for (uint64_t position = 0; status == TERNBIN_OK; position++) {
        uint64_t done = 0;
        for (uint64_t text = 0; text < texts; text++) {
            prepare(&settings, &searches[text]);
            done += searches[text].done != 0;
        }
        if (done == texts) break;
        feed(core, searches, parents, position);
        status = ternbin_call(core, texts + position);
        for (uint64_t text = 0; status == TERNBIN_OK && text < texts; text++) {
            struct candidate candidates[RANKED];
            if (searches[text].done || ++searches[text].fed < settings.prompt) continue;
            for (uint32_t beam = 0; beam < settings.beams; beam++)
                list(core, position, text * settings.beams + beam, candidates + beam * settings.candidates, settings.candidates);
            step(&settings, &searches[text], candidates, settings.candidates);
        }
    }
    for (uint64_t text = 0; status == TERNBIN_OK && text < texts; text++)
        found[text] = tell(&searches[text], tokens + text * max_new_tokens, max_new_tokens);
    return status;
}
