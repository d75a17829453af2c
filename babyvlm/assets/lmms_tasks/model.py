"""__TITLE__: a model for the lmms-eval of the BabyVLM 2026 leaderboard, in one file.

The weights are the hub repository __CHECKPOINT__. The file needs torch, transformers (4.37 or newer), tokenizers, safetensors,
huggingface_hub, numpy and Pillow, and nothing else. It answers `generate_until` (ten benchmarks), `generate_until_multi_round` (Memory)
and `loglikelihood` (Looking While Listening, by loss). An lmms-eval with a list AVAILABLE_MODELS finds it by the line

    "__NAME__": "__CLASS__",
"""
import json
import os

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from huggingface_hub import snapshot_download
from lmms_eval.api.model import lmms
from lmms_eval.api.registry import register_model
from PIL import Image, ImageOps
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

CHECKPOINT, REVISION = "__CHECKPOINT__", "__REVISION__"
IMAGE = '<image>'
FORMATS = ('JPEG', 'PNG', 'GIF', 'BMP', 'TIFF', 'WEBP', 'PPM')


def upright(picture):
    "RGB as in training: turned as the camera says, 16 bits scaled to 8, white behind what is transparent."
    if not isinstance(picture, Image.Image):
        with Image.open(picture, formats=FORMATS) as opened: return upright(opened)
    deep = picture.mode.startswith('I;16') or (picture.mode == 'I' and picture.format in ('PNG', 'PPM'))
    picture = ImageOps.exif_transpose(picture)
    if deep:
        grey, clear = np.asarray(picture), picture.info.get('transparency')
        picture = Image.fromarray((grey//257).astype(np.uint8))
        if clear is not None: picture.putalpha(Image.fromarray(np.where(grey == clear, 0, 255).astype(np.uint8)))
    if picture.mode in ('LA', 'La', 'PA', 'RGBA', 'RGBa') or 'transparency' in picture.info:
        picture = picture.convert('RGBA')
        white = Image.new('RGB', picture.size, 'white')
        white.paste(picture, mask=picture.getchannel('A'))
        return white
    return picture.convert('RGB')


class Bottleneck(nn.Module):
    "A block of a ResNeXt."
    def __init__(self, wide, planes, stride, dilation, groups, base, shortcut):
        super().__init__()
        mid, out = int(planes*base/64)*groups, 4*planes
        self.conv1, self.bn1 = nn.Conv2d(wide, mid, 1, bias=False), nn.BatchNorm2d(mid)
        self.conv2 = nn.Conv2d(mid, mid, 3, stride, dilation, dilation, groups, bias=False)
        self.bn2 = nn.BatchNorm2d(mid)
        self.conv3, self.bn3 = nn.Conv2d(mid, out, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample = nn.Sequential(nn.Conv2d(wide, out, 1, stride, bias=False), nn.BatchNorm2d(out)) if shortcut else None

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNeXt(nn.Module):
    "Pictures to rows of tokens."
    def __init__(self, c):
        super().__init__()
        self.body = body = nn.Module()
        body.conv1 = nn.Conv2d(3, c['stem'], 7, 2, 3, bias=False)
        body.bn1 = nn.BatchNorm2d(c['stem'])
        wide, dilation = c['stem'], 1
        for i, (n, planes, dilate) in enumerate(zip(c['layers'], c['planes'], (False, *c['dilate']))):
            stride, first = (2 if i else 1), dilation
            if dilate: dilation, stride = dilation*stride, 1
            blocks = []
            for k in range(n):
                shortcut = k == 0 and (stride != 1 or wide != 4*planes)
                blocks.append(Bottleneck(wide, planes, 1 if k else stride, dilation if k else first, c['groups'],
                                         c['width_per_group'], shortcut))
                wide = 4*planes
            setattr(body, f'layer{i + 1}', nn.Sequential(*blocks))
        self.stages = len(c['layers'])

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.body.bn1(self.body.conv1(x))), 3, 2, 1)
        for i in range(self.stages): x = getattr(self.body, f'layer{i + 1}')(x)
        return x.flatten(2).transpose(1, 2)


class ViTLayer(nn.Module):
    "A block of a vision transformer."
    def __init__(self, c):
        super().__init__()
        d, bias = c['hidden_size'], c.get('qkv_bias', True)
        self.heads = c['num_attention_heads']
        self.layernorm_before, self.layernorm_after = (nn.LayerNorm(d, eps=c['layer_norm_eps']) for _ in range(2))
        self.attention, self.mlp = nn.Module(), nn.Module()
        for name in ('q_proj', 'k_proj', 'v_proj'): setattr(self.attention, name, nn.Linear(d, d, bias=bias))
        self.attention.o_proj = nn.Linear(d, d)
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(d, c['intermediate_size']), nn.Linear(c['intermediate_size'], d)

    def forward(self, x):
        a, y = self.attention, self.layernorm_before(x)
        q, k, v = (f(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (a.q_proj, a.k_proj, a.v_proj))
        x = x + a.o_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.layernorm_after(x))))


class ViT(nn.Module):
    "Pictures to a first token and patches."
    def __init__(self, c):
        super().__init__()
        d, patch = c['hidden_size'], c['patch_size']
        self.embeddings = e = nn.Module()
        e.cls_token = nn.Parameter(torch.zeros(1, 1, d))
        e.position_embeddings = nn.Parameter(torch.zeros(1, (c['image_size']//patch)**2 + 1, d))
        e.patch_embeddings = nn.Module()
        e.patch_embeddings.projection = nn.Conv2d(3, d, patch, patch)
        self.layers = nn.ModuleList(ViTLayer(c) for _ in range(c['num_hidden_layers']))
        self.layernorm = nn.LayerNorm(d, eps=c['layer_norm_eps'])

    def forward(self, x):
        e = self.embeddings
        x = e.patch_embeddings.projection(x).flatten(2).transpose(1, 2)
        x = torch.cat([e.cls_token.expand(len(x), -1, -1), x], 1) + e.position_embeddings
        for layer in self.layers: x = layer(x)
        return self.layernorm(x)


def language_config(c):
    "The language model's settings, as this version of transformers spells them."
    rope = c.get('rope_parameters') or {}
    if rope.get('rope_type', 'default') != 'default': raise ValueError(f"rotary positions of type {rope['rope_type']} are not known here")
    if int(transformers.__version__.split('.')[0]) < 5:
        c = {k: v for k, v in c.items() if k not in ('rope_parameters', 'dtype')}
        if 'rope_theta' in rope: c['rope_theta'] = rope['rope_theta']
    return AutoConfig.for_model(**c)


class Baby(nn.Module):
    "Vision encoder, two-layer connector, language model."
    def __init__(self, c):
        super().__init__()
        text, eyes = language_config(c['text_config']), c['vision_config']
        kinds = dict(babyvlm_resnext=ResNeXt, vit=ViT)
        if eyes['model_type'] not in kinds: raise ValueError(f"vision encoder '{eyes['model_type']}' is not one of {list(kinds)}")
        self.vision_tower = kinds[eyes['model_type']](eyes)
        wide, deep = 4*eyes['planes'][-1] if 'planes' in eyes else eyes['hidden_size'], text.hidden_size
        self.mm_projector = nn.Sequential(nn.Linear(wide, deep), nn.GELU(), nn.Linear(deep, deep))
        self.standardize = c.get('standardize', False)
        if self.standardize: self.register_buffer('feature_mean', torch.zeros(wide)), self.register_buffer('feature_std', torch.ones(wide))
        self.language_model = AutoModelForCausalLM.from_config(text)

    def look(self, pixels):
        seen = self.vision_tower(pixels)
        return self.mm_projector((seen - self.feature_mean)/self.feature_std if self.standardize else seen)


def load_weights(model, folder):
    "Fill a model from all weight files of a folder; whatever does not fit is an error."
    state = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith('.safetensors'): state.update(load_file(os.path.join(folder, name)))
    lost, extra = model.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
    tied = 'language_model.lm_head.weight' if model.language_model.config.tie_word_embeddings else None
    lost = [k for k in lost if k != tied]
    if lost or extra: raise ValueError(f'the weights do not fit: missing {lost[:3]}, not known {extra[:3]}')
    model.language_model.tie_weights()


def read_json(folder, name, default=None):
    path = os.path.join(folder, name)
    if not os.path.isfile(path) and default is not None: return default
    with open(path, encoding='utf-8') as f: return json.load(f)


def read_tokenizer(folder):
    "The tokenizer; older versions want the two parts of a merge in one string."
    spec = read_json(folder, 'tokenizer.json')
    merges = spec['model'].get('merges')
    if merges and not isinstance(merges[0], str): spec['model']['merges'] = [' '.join(m) for m in merges]
    return Tokenizer.from_str(json.dumps(spec))


def special_id(settings, tokenizer, name, default):
    "The id of a special token."
    word = settings.get(name)
    word = word.get('content') if isinstance(word, dict) else word
    return default if word is None else tokenizer.token_to_id(word)


@register_model("__NAME__")
class __CLASS__(lmms):
    "__TITLE__"

    def __init__(self, pretrained=CHECKPOINT, revision=None, device=None, batch_size=1, max_batch_size=None, conv_template=None,
                 max_new_tokens=None):
        super().__init__()
        if revision is None and pretrained == CHECKPOINT: revision = REVISION or None
        folder = pretrained if os.path.isdir(pretrained) else snapshot_download(pretrained, revision=revision)
        config, self.look = read_json(folder, 'config.json'), read_json(folder, 'preprocessor_config.json')
        if config.get('model_type') != 'babyllava': raise ValueError(f"{pretrained} holds a '{config.get('model_type')}', not a babyllava")
        self.net = Baby(config)
        load_weights(self.net, folder)
        self.net.eval().to(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
        self.talks = os.path.isfile(os.path.join(folder, 'record_processor.json'))   # tuned on conversations, or on captions alone
        self.tokens = read_json(folder, 'babyllava_processor.json')['num_image_tokens']
        self.words, text = read_tokenizer(folder), config['text_config']
        names = read_json(folder, 'tokenizer_config.json', {})
        self.bos, self.eos = (special_id(names, self.words, f'{k}_token', text[f'{k}_token_id']) for k in ('bos', 'eos'))
        self.longest = text.get('max_position_embeddings') or text.get('n_positions')
        self.image = self.words.get_vocab_size()
        self.most = int(max_new_tokens or (8 if self.talks else 25))

    # pictures and words to embeddings

    def pixels(self, picture):
        picture, size = upright(picture), self.look['size']
        if self.look['pad_to_square'] and picture.width != picture.height:
            side = max(picture.size)
            square = Image.new('RGB', (side, side), tuple(int(255*m) for m in self.look['mean']))
            square.paste(picture, ((side - picture.width)//2, (side - picture.height)//2))
            picture = square
        if picture.size != (size, size): picture = picture.resize((size, size), getattr(Image.Resampling, self.look['resample'].upper()))
        mean, std = (torch.tensor(self.look[k]).view(3, 1, 1) for k in ('mean', 'std'))
        return (torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()/255 - mean)/std

    def see(self, pictures):
        "Tokens of the pictures, (pictures, tokens, width)."
        some = [torch.stack([self.pixels(p) for p in pictures[i:i + 64]]).to(self.where) for i in range(0, len(pictures), 64)]
        return torch.cat([self.net.look(s) for s in some])

    @property
    def where(self): return self.net.mm_projector[0].weight.device

    def encode(self, text): return self.words.encode(text, add_special_tokens=False).ids

    def conversation(self, turns):
        "Token ids of (question, answer) turns, up to the next answer."
        out, run = [self.bos], ' '
        for question, answer in turns:
            first, *rest = f'USER: {question} '.split(IMAGE)
            run += first
            for part in rest:
                out += self.encode(run) + [self.image]*self.tokens
                run = part
            run += 'ASSISTANT:' + (f' {answer}' if answer else '')
            if answer is not None: out += self.encode(run) + [self.eos]; run = ''
        return out + self.encode(run)

    def embed(self, ids, seen):
        "(1, length, width): words, and the pictures in their places."
        if len(ids) > self.longest: raise ValueError(f'{len(ids)} tokens, the model has {self.longest} positions')
        ids = torch.tensor(ids, device=self.where)
        here = ids == self.image
        if int(here.sum()) != len(seen)*self.tokens: raise ValueError(f'{int(here.sum())//self.tokens} {IMAGE} for {len(seen)} pictures')
        x = self.net.language_model.get_input_embeddings()(ids.masked_fill(here, 0))
        if len(seen): x[here] = seen.flatten(0, 1).to(x.dtype)
        return x[None]

    @torch.inference_mode()
    def speak(self, ids, seen):
        "The most likely words, up to the end of the answer."
        lm, x, past, out = self.net.language_model, self.embed(ids, seen), None, []
        while len(out) < min(self.most, self.longest - len(ids) + 1):
            got = lm(inputs_embeds=x, past_key_values=past, use_cache=True)
            past, new = got.past_key_values, int(got.logits[0, -1].argmax())
            if new == self.eos: break
            out.append(new)
            x = lm.get_input_embeddings()(torch.tensor([[new]], device=self.where))
        return self.words.decode(out, skip_special_tokens=True)

    @torch.inference_mode()
    def loss(self, prompt, pictures, text):
        "(loss of a text, whether it is what the model would say)."
        question = prompt if IMAGE in prompt else IMAGE*len(pictures) + prompt
        if self.talks: before, after = self.conversation([(question, None)]), self.encode(f' {text}') + [self.eos]
        else:
            said = self.encode(prompt) if prompt else []
            before = [self.image]*self.tokens*len(pictures) + said
            after = self.encode(f'{prompt.rstrip()} {text}')[len(said):] if prompt else self.encode(text)
        x = self.embed(before + after, self.see(pictures) if pictures else ())
        logits = self.net.language_model(inputs_embeds=x).logits[0, len(before) - 1:-1].float()
        target = torch.tensor(after, device=self.where)
        loss = F.cross_entropy(logits, target, reduction='sum' if self.talks else 'mean')
        return float(loss), bool((logits.argmax(-1) == target).all())

    def answer(self, turns, pictures):
        "What the model says next; a model of captions says what it sees in the first picture."
        if not self.talks: return self.speak([self.image]*self.tokens, self.see(pictures[:1]))
        return self.speak(self.conversation(turns), self.see(pictures) if pictures else ()).strip()

    # what lmms-eval calls

    def document(self, request):
        doc_id, task, split = request.args[-3:]
        return self.task_dict[task][split][doc_id]

    def generate_until(self, requests):
        out = []
        for request in requests:
            prompt, settings, visuals = request.args[:3]
            pictures = list(visuals(self.document(request)) or [])
            question = prompt if IMAGE in prompt else IMAGE*len(pictures) + prompt
            text = self.answer([(question, None)], pictures)
            stops = settings.get('until') or ()
            for stop in [stops] if isinstance(stops, str) else stops: text = text.split(stop)[0] if stop else text
            out.append(text)
        return out

    def generate_until_multi_round(self, requests):
        return [json.dumps(self.rounds(self.document(r))) for r in requests]

    def rounds(self, doc):
        "Answers of a record, each with the model's own earlier answers before it."
        turns = doc['conversations']
        turns, pictures, shown = json.loads(turns) if isinstance(turns, str) else turns, list(doc['image']), 0
        past, asked, said = [], [], []
        for turn, after in zip(turns, [*turns[1:], None]):
            if turn['from'] != 'human': continue
            asked.append(turn['value'])
            if after is not None and after['from'] == 'human': continue
            question, asked = ' '.join(asked), []
            shown += question.count(IMAGE)
            said.append(self.answer([*past, (question, None)], pictures[:shown]))
            past.append((question, said[-1]))
        return said

    def loglikelihood(self, requests):
        out = []
        for request in requests:
            prompt, target, visuals = request.args[:3]
            doc = self.document(request)
            prompt = prompt[0] if isinstance(prompt, list) else prompt
            out.append(self.loss(prompt, list(visuals(doc) or []), target if isinstance(target, str) else target(doc)))
        return out
