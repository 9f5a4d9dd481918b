"""Which paper the architecture of a library's network comes from, by its name; who trained the weights is another question."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Paper:
    """Where an architecture was published.

    Args:
        year: When it appeared first, as a preprint or at a venue.
        cited: Authors and year, short title, and where to find it.
    """

    year: int
    cited: str


def paper(name: str) -> Paper | None:
    """The paper of an architecture; None where none is known, as for networks that exist only as code.

    What a name begins with decides, the longest fitting entry of `PAPERS` first. `tf_` and `legacy_` say where the code came
    from, and timm's tiny `test_` networks are as their families.

    Example:
        >>> [paper(name).year for name in ("resnet50", "resnetrs50", "tf_efficientnetv2_s", "vit_base_patch16_clip_224")]
        [2015, 2021, 2021, 2021]
        >>> paper("an_own_network") is None
        True
    """
    bare = name.removeprefix("tf_").removeprefix("legacy_").removeprefix("test_")
    fitting = [key for key in PAPERS if _fits(bare, key)]
    return PAPERS[max(fitting, key=len)] if fitting else None


def _fits(name: str, key: str) -> bool:
    """Whether a name begins with a key, up to a word's end; behind a `*`, a word that stands anywhere in it."""
    begin, _, word = key.partition("*")
    if word:
        return name.startswith(begin) and word in name.split("_")
    rest = name.removeprefix(begin)
    return name.startswith(begin) and (not rest or not rest[0].isalpha() or begin[-1] == "_")


_BOTNET = Paper(2021, "Srinivas et al. 2021, Bottleneck transformers for visual recognition (BoTNet), arXiv:2101.11605")
_CAFORMER = Paper(2022, "Yu et al. 2022, MetaFormer baselines for vision, arXiv:2210.13452")
_COATNET = Paper(2021, "Dai et al. 2021, CoAtNet: marrying convolution and attention, arXiv:2106.04803")
_CSPNET = Paper(2019, "Wang et al. 2019, CSPNet: a backbone that can enhance the learning capability of CNN, arXiv:1911.11929")
_DARKNET = Paper(2018, "Redmon and Farhadi 2018, YOLOv3: an incremental improvement (Darknet-53), arXiv:1804.02767")
_DENSENET = Paper(2016, "Huang et al. 2016, Densely connected convolutional networks, arXiv:1608.06993")
_ECA_RESNET = Paper(2019, "Wang et al. 2019, ECA-Net: efficient channel attention, arXiv:1910.03151")
_EFFICIENTNET_H = Paper(2021, "Li et al. 2021, Searching for fast model families on datacenter accelerators, arXiv:2102.05610")
_EFFICIENTNETV2 = Paper(2021, "Tan and Le 2021, EfficientNetV2: smaller models and faster training, arXiv:2104.00298")
_EFFICIENTVIT_B = Paper(2022, "Cai et al. 2022, EfficientViT: multi-scale linear attention, arXiv:2205.14756")
_FASTVIT_MCI = Paper(2023, "Vasu et al. 2023, MobileCLIP: fast image-text models, arXiv:2311.17049")
_FASTVIT_MCI3 = Paper(2025, "Faghri et al. 2025, MobileCLIP2: improving multi-modal reinforced training, arXiv:2508.20691")
_GCRESNET = Paper(2019, "Cao et al. 2019, GCNet: non-local networks meet squeeze-excitation, arXiv:1904.11492")
_HALONET = Paper(2021, "Vaswani et al. 2021, Scaling local self-attention for visual backbones (HaloNet), arXiv:2103.12731")
_HIERADET = Paper(2024, "Ravi et al. 2024, SAM 2: segment anything in images and videos, arXiv:2408.00714")
_INCEPTION_V4 = Paper(2016, "Szegedy et al. 2016, Inception-v4, Inception-ResNet and residual connections, arXiv:1602.07261")
_LAMBDA_RESNET = Paper(2021, "Bello 2021, LambdaNetworks: modeling long-range interactions without attention, arXiv:2102.08602")
_MAXVIT = Paper(2022, "Tu et al. 2022, MaxViT: multi-axis vision transformer, arXiv:2204.01697")
_MIXER = Paper(2021, "Tolstikhin et al. 2021, MLP-Mixer: an all-MLP architecture for vision, arXiv:2105.01601")
_MNASNET = Paper(2018, "Tan et al. 2018, MnasNet: platform-aware neural architecture search, arXiv:1807.11626")
_MOBILENETV2 = Paper(2018, "Sandler et al. 2018, MobileNetV2: inverted residuals and linear bottlenecks, arXiv:1801.04381")
_MOBILENETV3 = Paper(2019, "Howard et al. 2019, Searching for MobileNetV3, arXiv:1905.02244")
_NAFLEXVIT = Paper(2025, "Tschannen et al. 2025, SigLIP 2: multilingual vision-language encoders (NaFlex), arXiv:2502.14786")
_NF_RESNET = Paper(2021, "Brock et al. 2021, Characterizing signal propagation in unnormalized ResNets, arXiv:2101.08692")
_NFNET = Paper(2021, "Brock et al. 2021, High-performance recognition without normalization (NFNet), arXiv:2102.06171")
_REGNET_X = Paper(2020, "Radosavovic et al. 2020, Designing network design spaces (RegNet), arXiv:2003.13678")
_RES2NET = Paper(2019, "Gao et al. 2019, Res2Net: a new multi-scale backbone architecture, arXiv:1904.01169")
_RESNET = Paper(2015, "He et al. 2015, Deep residual learning for image recognition (ResNet), arXiv:1512.03385")
_REXNET = Paper(2020, "Han et al. 2020, Rethinking channel dimensions for efficient model design, arXiv:2007.00992")
_SENET = Paper(2017, "Hu et al. 2017, Squeeze-and-excitation networks, arXiv:1709.01507")
_SKRESNET = Paper(2019, "Li et al. 2019, Selective kernel networks, arXiv:1903.06586")
_SWINV2 = Paper(2021, "Liu et al. 2021, Swin transformer V2: scaling up capacity and resolution, arXiv:2111.09883")
_VIT_BASE_PATCH16_18X2 = Paper(2022, "Touvron et al. 2022, Three things everyone should know about ViTs, arXiv:2203.09795")
_VIT_CLIP = Paper(2021, "Radford et al. 2021, Transferable visual models from language (CLIP), arXiv:2103.00020")
_VIT_DLITTLE_PATCH16 = Paper(2024, "Ye et al. 2024, Differential transformer, arXiv:2410.05258")
_VIT_GIANT_PATCH14_224 = Paper(2021, "Zhai et al. 2021, Scaling vision transformers, arXiv:2106.04560")
_VIT_HUGE_PATCH14_GAP = Paper(2023, "Assran et al. 2023, Joint-embedding predictive architecture (I-JEPA), arXiv:2301.08243")
_VIT_RADIO = Paper(2023, "Ranzinger et al. 2023, AM-RADIO: reduce all domains into one, arXiv:2312.06709")
_VIT_REG1 = Paper(2023, "Darcet et al. 2023, Vision transformers need registers, arXiv:2309.16588")
_VIT_SO150M = Paper(2023, "Alabdulmohsin et al. 2023, Getting ViT in shape (SoViT), arXiv:2305.13035")
_VOVNET = Paper(2019, "Lee et al. 2019, An energy and GPU-computation efficient backbone (VoVNet), arXiv:1904.09730")
_XCEPTION41 = Paper(2018, "Chen et al. 2018, Atrous separable convolution (DeepLabv3+, aligned Xception), arXiv:1802.02611")

PAPERS: dict[str, Paper] = {
    # what a name begins with, or with * what else it must hold
    "aimv2": Paper(
        2024, "Fini et al. 2024, Multimodal autoregressive pre-training of large vision encoders (AIMv2), arXiv:2411.14402"
    ),
    "alexnet": Paper(2014, "Krizhevsky 2014, One weird trick for parallelizing convolutional neural networks, arXiv:1404.5997"),
    "bat_resnext": Paper(2020, "Chi et al. 2020, Non-local networks with grouped bilinear attentional transforms, CVPR"),
    "beit": Paper(2021, "Bao et al. 2021, BEiT: BERT pre-training of image transformers, arXiv:2106.08254"),
    "beit3": Paper(2022, "Wang et al. 2022, Image as a foreign language (BEiT-3), arXiv:2208.10442"),
    "beitv2": Paper(2022, "Peng et al. 2022, BEiT v2: masked image modeling with visual tokenizers, arXiv:2208.06366"),
    "botnet": _BOTNET,
    "caformer": _CAFORMER,
    "cait": Paper(2021, "Touvron et al. 2021, Going deeper with image transformers (CaiT), arXiv:2103.17239"),
    "coat": Paper(2021, "Xu et al. 2021, Co-scale conv-attentional image transformers (CoaT), arXiv:2104.06399"),
    "coatnet": _COATNET,
    "coatnext": _COATNET,
    "convformer": _CAFORMER,
    "convit": Paper(2021, "d'Ascoli et al. 2021, ConViT: soft convolutional inductive biases, arXiv:2103.10697"),
    "convmixer": Paper(2022, "Trockman and Kolter 2022, Patches are all you need? (ConvMixer), arXiv:2201.09792"),
    "convnext": Paper(2022, "Liu et al. 2022, A ConvNet for the 2020s (ConvNeXt), arXiv:2201.03545"),
    "convnextv2": Paper(2023, "Woo et al. 2023, ConvNeXt V2: co-designing with masked autoencoders, arXiv:2301.00808"),
    "cpubone": Paper(
        2026, "Nottebaum et al. 2026, CPUBone: vision backbones for devices with low parallelization, arXiv:2603.26425"
    ),
    "crossvit": Paper(2021, "Chen et al. 2021, CrossViT: cross-attention multi-scale vision transformer, arXiv:2103.14899"),
    "cs3darknet": _CSPNET,
    "cs3edgenet": _CSPNET,
    "cs3se_edgenet": _CSPNET,
    "cs3sedarknet": _CSPNET,
    "cspdarknet": _CSPNET,
    "cspnet": _CSPNET,
    "cspnext": Paper(2022, "Lyu et al. 2022, RTMDet: designing real-time object detectors (CSPNeXt), arXiv:2212.07784"),
    "cspresnet": _CSPNET,
    "cspresnext": _CSPNET,
    "darknet": _DARKNET,
    "darknetaa": _DARKNET,
    "davit": Paper(2022, "Ding et al. 2022, DaViT: dual attention vision transformers, arXiv:2204.03645"),
    "deepseek_vit": Paper(2026, "DeepSeek-AI 2026, DeepSeek-V4.1-Flash: the limits of KV cache compression, arXiv:2609.19969"),
    "deit": Paper(2020, "Touvron et al. 2020, Training data-efficient image transformers (DeiT), arXiv:2012.12877"),
    "deit3": Paper(2022, "Touvron et al. 2022, DeiT III: revenge of the ViT, arXiv:2204.07118"),
    "densenet": _DENSENET,
    "densenetblur": _DENSENET,
    "dla": Paper(2017, "Yu et al. 2017, Deep layer aggregation, arXiv:1707.06484"),
    "dla60_res2net": _RES2NET,
    "dla60_res2next": _RES2NET,
    "dm_nfnet": _NFNET,
    "dpn": Paper(2017, "Chen et al. 2017, Dual path networks, arXiv:1707.01629"),
    "eca_botnext": _BOTNET,
    "eca_halonext": _HALONET,
    "eca_nfnet": _NFNET,
    "eca_resnet": _ECA_RESNET,
    "eca_resnext": _ECA_RESNET,
    "eca_vovnet": _VOVNET,
    "ecaresnet": _ECA_RESNET,
    "ecaresnetlight": _ECA_RESNET,
    "ecaresnext": _ECA_RESNET,
    "edgenext": Paper(
        2022, "Maaz et al. 2022, EdgeNeXt: efficiently amalgamated CNN-transformer architecture, arXiv:2206.10589"
    ),
    "efficientformer": Paper(2022, "Li et al. 2022, EfficientFormer: vision transformers at MobileNet speed, arXiv:2206.01191"),
    "efficientformerv2": Paper(
        2022, "Li et al. 2022, Rethinking vision transformers for MobileNet size and speed, arXiv:2212.08059"
    ),
    "efficientnet": Paper(2019, "Tan and Le 2019, EfficientNet: rethinking model scaling, arXiv:1905.11946"),
    "efficientnet_cc": Paper(2019, "Yang et al. 2019, CondConv: conditionally parameterized convolutions, arXiv:1904.04971"),
    "efficientnet_h": _EFFICIENTNET_H,
    "efficientnet_l2": Paper(2019, "Xie et al. 2019, Self-training with noisy student, arXiv:1911.04252"),
    "efficientnet_v2": _EFFICIENTNETV2,
    "efficientnet_x": _EFFICIENTNET_H,
    "efficientnetv2": _EFFICIENTNETV2,
    "efficientvim": Paper(
        2024, "Lee et al. 2024, EfficientViM: efficient vision Mamba with hidden state mixer, arXiv:2411.15241"
    ),
    "efficientvit_b": _EFFICIENTVIT_B,
    "efficientvit_l": _EFFICIENTVIT_B,
    "efficientvit_m": Paper(2023, "Liu et al. 2023, EfficientViT: memory efficient vision transformer, arXiv:2305.07027"),
    "ese_vovnet": Paper(2019, "Lee and Park 2019, CenterMask: real-time instance segmentation (VoVNetV2), arXiv:1911.06667"),
    "eva": Paper(2022, "Fang et al. 2022, EVA: the limits of masked visual representation learning, arXiv:2211.07636"),
    "eva*clip": Paper(2023, "Sun et al. 2023, EVA-CLIP: improved training techniques for CLIP at scale, arXiv:2303.15389"),
    "eva02": Paper(2023, "Fang et al. 2023, EVA-02: a visual representation for neon genesis, arXiv:2303.11331"),
    "fasternet": Paper(2023, "Chen et al. 2023, Run, don't walk: higher FLOPS for faster neural networks, arXiv:2303.03667"),
    "fastvit": Paper(2023, "Vasu et al. 2023, FastViT: a fast hybrid vision transformer, arXiv:2303.14189"),
    "fastvit_mci": _FASTVIT_MCI,
    "fastvit_mci3": _FASTVIT_MCI3,
    "fastvit_mci4": _FASTVIT_MCI3,
    "fbnetc": Paper(2018, "Wu et al. 2018, FBNet: hardware-aware differentiable architecture search, arXiv:1812.03443"),
    "fbnetv3": Paper(2020, "Dai et al. 2020, FBNetV3: joint architecture-recipe search, arXiv:2006.02049"),
    "flexivit": Paper(2022, "Beyer et al. 2022, FlexiViT: one model for all patch sizes, arXiv:2212.08013"),
    "focalnet": Paper(2022, "Yang et al. 2022, Focal modulation networks, arXiv:2203.11926"),
    "gc_efficientnetv2": _EFFICIENTNETV2,
    "gcresnet": _GCRESNET,
    "gcresnext": _GCRESNET,
    "gcvit": Paper(2022, "Hatamizadeh et al. 2022, Global context vision transformers, arXiv:2206.09959"),
    "gemma4_vit": Paper(2026, "Gemma team 2026, Gemma 4 technical report, arXiv:2607.02770"),
    "gernet": Paper(2020, "Lin et al. 2020, Neural architecture design for GPU-efficient networks, arXiv:2006.14090"),
    "ghostnet": Paper(2019, "Han et al. 2019, GhostNet: more features from cheap operations, arXiv:1911.11907"),
    "ghostnetv2": Paper(
        2022, "Tang et al. 2022, GhostNetV2: enhance cheap operation with long-range attention, arXiv:2211.12905"
    ),
    "ghostnetv3": Paper(2024, "Liu et al. 2024, GhostNetV3: training strategies for compact models, arXiv:2404.11202"),
    "gmixer": _MIXER,
    "gmlp": Paper(2021, "Liu et al. 2021, Pay attention to MLPs (gMLP), arXiv:2105.08050"),
    "googlenet": Paper(2014, "Szegedy et al. 2014, Going deeper with convolutions (GoogLeNet), arXiv:1409.4842"),
    "halo2botnet": _HALONET,
    "halonet": _HALONET,
    "haloregnetz": _HALONET,
    "hardcorenas": Paper(
        2021, "Nayman et al. 2021, HardCoRe-NAS: hard constrained neural architecture search, arXiv:2102.11646"
    ),
    "hiera": Paper(2023, "Ryali et al. 2023, Hiera: a hierarchical vision transformer, arXiv:2306.00989"),
    "hiera*abswin": Paper(
        2023, "Bolya et al. 2023, Window attention is bugged (Hiera with absolute windows), arXiv:2311.05613"
    ),
    "hieradet": _HIERADET,
    "hrnet": Paper(2019, "Wang et al. 2019, Deep high-resolution representation learning, arXiv:1908.07919"),
    "iformer": Paper(2025, "Zheng 2025, iFormer: integrating ConvNet and transformer for mobile application, arXiv:2501.15369"),
    "inception_next": Paper(2023, "Yu et al. 2023, InceptionNeXt: when Inception meets ConvNeXt, arXiv:2303.16900"),
    "inception_resnet_v2": _INCEPTION_V4,
    "inception_v3": Paper(2015, "Szegedy et al. 2015, Rethinking the Inception architecture (Inception-v3), arXiv:1512.00567"),
    "inception_v4": _INCEPTION_V4,
    "lambda_resnet": _LAMBDA_RESNET,
    "lamhalobotnet": _LAMBDA_RESNET,
    "lcnet": Paper(2021, "Cui et al. 2021, PP-LCNet: a lightweight CPU convolutional neural network, arXiv:2109.15099"),
    "levit": Paper(2021, "Graham et al. 2021, LeViT: a vision transformer in ConvNet's clothing, arXiv:2104.01136"),
    "lowformer": Paper(
        2024, "Nottebaum et al. 2024, LowFormer: hardware efficient convolutional transformers, arXiv:2409.03460"
    ),
    "lowformer_e": Paper(2026, "Nottebaum et al. 2026, Beyond MACs: hardware efficient architecture design, arXiv:2603.26551"),
    "mambaout": Paper(2024, "Yu and Wang 2024, MambaOut: do we really need Mamba for vision?, arXiv:2405.07992"),
    "maxvit": _MAXVIT,
    "maxxvit": _MAXVIT,
    "maxxvitv2": _MAXVIT,
    "mixer": _MIXER,
    "mixnet": Paper(2019, "Tan and Le 2019, MixConv: mixed depthwise convolutional kernels, arXiv:1907.09595"),
    "mnasnet": _MNASNET,
    "mobilenet_edgetpu_v2": Paper(
        2022, "Akin et al. 2022, Searching for efficient architectures for on-device ML on Edge TPUs, arXiv:2204.14007"
    ),
    "mobilenet_v2": _MOBILENETV2,
    "mobilenet_v3": _MOBILENETV3,
    "mobilenetv1": Paper(2017, "Howard et al. 2017, MobileNets: efficient networks for mobile vision, arXiv:1704.04861"),
    "mobilenetv2": _MOBILENETV2,
    "mobilenetv3": _MOBILENETV3,
    "mobilenetv4": Paper(2024, "Qin et al. 2024, MobileNetV4: universal models for the mobile ecosystem, arXiv:2404.10518"),
    "mobileone": Paper(2022, "Vasu et al. 2022, MobileOne: an improved one millisecond mobile backbone, arXiv:2206.04040"),
    "mobilevit": Paper(2021, "Mehta and Rastegari 2021, MobileViT: light-weight mobile-friendly transformer, arXiv:2110.02178"),
    "mobilevitv2": Paper(2022, "Mehta and Rastegari 2022, Separable self-attention for mobile transformers, arXiv:2206.02680"),
    "mvitv2": Paper(2021, "Li et al. 2021, MViTv2: improved multiscale vision transformers, arXiv:2112.01526"),
    "naflexvit": _NAFLEXVIT,
    "naflexvit*radio": _VIT_RADIO,
    "naflexvit*siglip": _NAFLEXVIT,
    "nasnetalarge": Paper(
        2017, "Zoph et al. 2017, Learning transferable architectures for scalable recognition, arXiv:1707.07012"
    ),
    "nest": Paper(2021, "Zhang et al. 2021, Nested hierarchical transformer (NesT), arXiv:2105.12723"),
    "nextvit": Paper(2022, "Li et al. 2022, Next-ViT: next generation vision transformer for deployment, arXiv:2207.05501"),
    "nf_ecaresnet": _NF_RESNET,
    "nf_regnet": _NF_RESNET,
    "nf_resnet": _NF_RESNET,
    "nf_seresnet": _NF_RESNET,
    "nfnet": _NFNET,
    "pit": Paper(2021, "Heo et al. 2021, Rethinking spatial dimensions of vision transformers (PiT), arXiv:2103.16302"),
    "pnasnet5large": Paper(2017, "Liu et al. 2017, Progressive neural architecture search, arXiv:1712.00559"),
    "poolformer": Paper(2021, "Yu et al. 2021, MetaFormer is actually what you need for vision, arXiv:2111.11418"),
    "poolformerv2": _CAFORMER,
    "pvt_v2": Paper(2021, "Wang et al. 2021, PVT v2: improved baselines with pyramid vision transformer, arXiv:2106.13797"),
    "qwen3_vit": Paper(2025, "Qwen team 2025, Qwen3-VL technical report, arXiv:2511.21631"),
    "rdnet": Paper(2024, "Kim et al. 2024, DenseNets reloaded: paradigm shift beyond ResNets and ViTs, arXiv:2403.19588"),
    "regnet_x": _REGNET_X,
    "regnet_y": _REGNET_X,
    "regnetv": _REGNET_X,
    "regnetx": _REGNET_X,
    "regnety": _REGNET_X,
    "regnetz": Paper(2021, "Dollár et al. 2021, Fast and accurate model scaling (RegNetZ), arXiv:2103.06877"),
    "repghostnet": Paper(2022, "Chen et al. 2022, RepGhost: a hardware-efficient Ghost module, arXiv:2211.06088"),
    "repvgg": Paper(2021, "Ding et al. 2021, RepVGG: making VGG-style ConvNets great again, arXiv:2101.03697"),
    "repvit": Paper(2023, "Wang et al. 2023, RepViT: revisiting mobile CNN from ViT perspective, arXiv:2307.09283"),
    "res2net": _RES2NET,
    "res2next": _RES2NET,
    "resmlp": Paper(2021, "Touvron et al. 2021, ResMLP: feedforward networks for image classification, arXiv:2105.03404"),
    "resnest": Paper(2020, "Zhang et al. 2020, ResNeSt: split-attention networks, arXiv:2004.08955"),
    "resnet": _RESNET,
    "resnet*clip": _VIT_CLIP,
    "resnetaa": _RESNET,
    "resnetblur": Paper(2019, "Zhang 2019, Making convolutional networks shift-invariant again, arXiv:1904.11486"),
    "resnetrs": Paper(2021, "Bello et al. 2021, Revisiting ResNets: training and scaling strategies, arXiv:2103.07579"),
    "resnetv2": Paper(2016, "He et al. 2016, Identity mappings in deep residual networks (ResNet v2), arXiv:1603.05027"),
    "resnetv2*bit": Paper(
        2019, "Kolesnikov et al. 2019, Big Transfer (BiT): general visual representation learning, arXiv:1912.11370"
    ),
    "resnext": Paper(2016, "Xie et al. 2016, Aggregated residual transformations (ResNeXt), arXiv:1611.05431"),
    "rexnet": _REXNET,
    "rexnetr": _REXNET,
    "sam2_hiera": _HIERADET,
    "samvit": Paper(2023, "Kirillov et al. 2023, Segment anything, arXiv:2304.02643"),
    "sebotnet": _BOTNET,
    "sedarknet": _DARKNET,
    "sehalonet": _HALONET,
    "selecsls": Paper(2019, "Mehta et al. 2019, XNect: real-time multi-person 3D motion capture (SelecSLS), arXiv:1907.00837"),
    "semnasnet": _MNASNET,
    "senet": _SENET,
    "sequencer2d": Paper(2022, "Tatsunami and Taki 2022, Sequencer: deep LSTM for image classification, arXiv:2205.01972"),
    "seresnet": _SENET,
    "seresnetaa": _SENET,
    "seresnext": _SENET,
    "seresnextaa": _SENET,
    "shufflenet_v2": Paper(
        2018, "Ma et al. 2018, ShuffleNet V2: practical guidelines for efficient CNN design, arXiv:1807.11164"
    ),
    "shvit": Paper(2024, "Yun and Ro 2024, SHViT: single-head vision transformer, arXiv:2401.16456"),
    "skresnet": _SKRESNET,
    "skresnext": _SKRESNET,
    "spnasnet": Paper(2019, "Stamoulis et al. 2019, Single-path NAS: hardware-efficient ConvNets in 4 hours, arXiv:1904.02877"),
    "squeezenet1": Paper(
        2016, "Iandola et al. 2016, SqueezeNet: AlexNet-level accuracy with 50x fewer parameters, arXiv:1602.07360"
    ),
    "starnet": Paper(2024, "Ma et al. 2024, Rewrite the stars (StarNet), arXiv:2403.19967"),
    "swiftformer": Paper(2023, "Shaker et al. 2023, SwiftFormer: efficient additive attention, arXiv:2303.15446"),
    "swin": Paper(2021, "Liu et al. 2021, Swin transformer: hierarchical, with shifted windows, arXiv:2103.14030"),
    "swin_s3": Paper(2021, "Chen et al. 2021, Searching the search space of vision transformer (S3), arXiv:2111.14725"),
    "swin_v2": _SWINV2,
    "swinv2": _SWINV2,
    "tiny_vit": Paper(2022, "Wu et al. 2022, TinyViT: fast pretraining distillation for small transformers, arXiv:2207.10666"),
    "tinynet": Paper(2020, "Han et al. 2020, Model Rubik's cube (TinyNets), arXiv:2010.14819"),
    "tnt": Paper(2021, "Han et al. 2021, Transformer in transformer (TNT), arXiv:2103.00112"),
    "tresnet": Paper(2020, "Ridnik et al. 2020, TResNet: high performance GPU-dedicated architecture, arXiv:2003.13630"),
    "twins": Paper(2021, "Chu et al. 2021, Twins: revisiting spatial attention in vision transformers, arXiv:2104.13840"),
    "vgg": Paper(2014, "Simonyan and Zisserman 2014, Very deep convolutional networks (VGG), arXiv:1409.1556"),
    "visformer": Paper(2021, "Chen et al. 2021, Visformer: the vision-friendly transformer, arXiv:2104.12533"),
    "vit": Paper(2020, "Dosovitskiy et al. 2020, An image is worth 16x16 words (ViT), arXiv:2010.11929"),
    "vit*clip": _VIT_CLIP,
    "vit*dinov2": Paper(2023, "Oquab et al. 2023, DINOv2: robust visual features without supervision, arXiv:2304.07193"),
    "vit*dinov3": Paper(2025, "Siméoni et al. 2025, DINOv3, arXiv:2508.10104"),
    "vit*lingbot": Paper(2026, "LingBot-Vision 2026, Vision pretraining for dense spatial perception, arXiv:2607.05247"),
    "vit*mci": _FASTVIT_MCI,
    "vit*radio": _VIT_RADIO,
    "vit*reg1": _VIT_REG1,
    "vit*reg4": _VIT_REG1,
    "vit*rope": Paper(2024, "Heo et al. 2024, Rotary position embedding for vision transformer, arXiv:2403.13298"),
    "vit*sapiens2": Paper(2026, "Khirodkar et al. 2026, Sapiens2, arXiv:2604.21681"),
    "vit*siglip": Paper(2023, "Zhai et al. 2023, Sigmoid loss for language image pre-training (SigLIP), arXiv:2303.15343"),
    "vit*tipsv2": Paper(2026, "TIPSv2 2026, Enhanced patch-text alignment for pretraining, arXiv:2604.12012"),
    "vit_base_patch16_18x2": _VIT_BASE_PATCH16_18X2,
    "vit_dlittle_patch16": _VIT_DLITTLE_PATCH16,
    "vit_dpwee_patch16": _VIT_DLITTLE_PATCH16,
    "vit_dwee_patch16": _VIT_DLITTLE_PATCH16,
    "vit_giant_patch14_224": _VIT_GIANT_PATCH14_224,
    "vit_giant_patch16_gap": _VIT_HUGE_PATCH14_GAP,
    "vit_gigantic_patch14_224": _VIT_GIANT_PATCH14_224,
    "vit_huge_patch14_gap": _VIT_HUGE_PATCH14_GAP,
    "vit_huge_patch16_gap": _VIT_HUGE_PATCH14_GAP,
    "vit_intern300m": Paper(
        2024, "Gao et al. 2024, Mini-InternVL: a flexible-transfer pocket multimodal model, arXiv:2410.16261"
    ),
    "vit_pe": Paper(2025, "Bolya et al. 2025, Perception Encoder, arXiv:2504.13181"),
    "vit_small_patch16_18x2": _VIT_BASE_PATCH16_18X2,
    "vit_small_patch16_36x1": _VIT_BASE_PATCH16_18X2,
    "vit_so150m": _VIT_SO150M,
    "vit_so150m2": _VIT_SO150M,
    "vitamin": Paper(2024, "Chen et al. 2024, ViTamin: scalable vision models in the vision-language era, arXiv:2404.02132"),
    "volo": Paper(2021, "Yuan et al. 2021, VOLO: vision outlooker for visual recognition, arXiv:2106.13112"),
    "vovnet": _VOVNET,
    "wide_resnet": Paper(2016, "Zagoruyko and Komodakis 2016, Wide residual networks, arXiv:1605.07146"),
    "xception": Paper(2016, "Chollet 2016, Xception: depthwise separable convolutions, arXiv:1610.02357"),
    "xception41": _XCEPTION41,
    "xception41p": _XCEPTION41,
    "xception65": _XCEPTION41,
    "xception65p": _XCEPTION41,
    "xception71": _XCEPTION41,
    "xcit": Paper(2021, "El-Nouby et al. 2021, XCiT: cross-covariance image transformers, arXiv:2106.09681"),
}
