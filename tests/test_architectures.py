"""Architectures of timm and torchvision: what is listed can be tapped or says why not, and cuts change no bit."""

import pytest
import torch

from lib import models
from lib.models import cutting

# name (of timm's models without `timm:`) and the side of the images: the smallest of each family, where it works
ARCHITECTURES = """
    beit_base_patch16_224 64
    halonet_h1 256
    test_byobnet 64
    cait_xxs24_224 64
    coat_tiny 64
    convit_tiny 64
    convmixer_768_32 64
    test_convnext 64
    cpubone_nano 64
    csatv2 64
    cs3darknet_focus_s 64
    cspnext_tiny 64
    davit_tiny 64
    deit_tiny_patch16_224 64
    densenet121 64
    dla34 64
    dpn48b 64
    edgenext_xx_small 64
    efficientformer_l1 224
    efficientformerv2_s0 64
    tinynet_e 64
    efficientvim_m1 64
    efficientvit_b0 64
    efficientvit_m0 64
    eva02_tiny_patch14_224 64
    fasternet_t0 64
    fastvit_t8 64
    focalnet_tiny_srf 64
    gcvit_xxtiny 64
    ghostnet_050 64
    hardcorenas_b 64
    hgnetv2_b0 64
    hiera_tiny_224 64
    sam2_hiera_tiny 64
    hrnet_w18_small 64
    iformer_t 64
    inception_next_atto 64
    inception_v3 96
    lcnetv2_small 64
    levit_128s 64
    lowformer_b0 64
    test_mambaout 64
    test_coatnet 64
    poolformerv2_s12 64
    gmlp_ti16_224 64
    lcnet_035 64
    mobilevit_xxs 64
    mvitv2_tiny 64
    nest_tiny 64
    nextvit_small 64
    test_nfnet 64
    pit_ti_224 64
    pvt_v2_b0 64
    rdnet_tiny 64
    regnetx_002 64
    repghostnet_050 64
    repvit_m1 64
    res2next50 64
    resnest14d 64
    resnet10t 64
    resnetv2_18 64
    rexnet_100 64
    selecsls42 64
    legacy_seresnet18 64
    sequencer2d_s 64
    shvit_s1 64
    skresnet18 64
    starnet_s050 64
    swiftformer_xs 64
    swin_tiny_patch4_window7_224 64
    swinv2_tiny_window8_256 64
    swinv2_cr_tiny_224 64
    tiny_vit_5m_224 64
    tresnet_m 64
    twins_svt_small 64
    visformer_tiny 64
    test_vit 64
    vit_tiny_r_s16_p8_224 64
    test_vit_relpos 64
    vitamin_small_224 64
    volo_d1_224 64
    ese_vovnet19b_dw 64
    legacy_xception 64
    xception41p 64
    xcit_nano_12_p8_224 64
    tv:convnext_tiny 64
    tv:densenet121 64
    tv:efficientnet_b0 64
    tv:efficientnet_v2_s 64
    tv:googlenet 64
    tv:inception_v3 96
    tv:maxvit_t 224
    tv:mnasnet0_5 64
    tv:mobilenet_v2 64
    tv:mobilenet_v3_small 64
    tv:regnet_x_400mf 64
    tv:regnet_y_400mf 64
    tv:resnet18 64
    tv:resnet50 64
    tv:resnext50_32x4d 64
    tv:shufflenet_v2_x0_5 64
    tv:squeezenet1_0 64
    tv:squeezenet1_1 64
    tv:swin_t 64
    tv:swin_v2_t 64
    tv:vgg11_bn 64
    tv:vit_b_16 32
    test_resnet 64
    efficientnet_lite0 64
    mobilenetv4_conv_small_035 64
    vit_tiny_patch16_224 64
"""


@pytest.mark.slow
@pytest.mark.parametrize("line", ARCHITECTURES.strip().splitlines())
def test_taps_of_an_image_do_not_depend_on_its_batch_and_cuts_change_no_bit(line):
    name, size = line.split()
    torch.manual_seed(0)
    network = models.build(name if ":" in name else f"timm:{name}", 10, 3, int(size)).eval()
    images = torch.rand(3, 3, int(size), int(size))
    listed = cutting.layers(network, images[:1])
    tapped = [layer.name for layer in listed if not layer.untapped]
    assert tapped and all(layer.untapped for layer in listed if layer.name not in tapped)
    with torch.no_grad():
        with cutting.record(network, tapped) as three:
            logits = network(images)
        with cutting.record(network, tapped) as two:
            network(images[:2])
        for layer in tapped:
            assert len(three[layer]) == 3 and len(two[layer]) == 2, layer
            largest = max(three[layer].abs().max().item(), 1e-20)
            torch.testing.assert_close(three[layer][:2], two[layer], rtol=1e-2, atol=1e-4 * largest, msg=layer)
        cuts = [layer.name for layer in listed if layer.cut]
        for layer in cuts[:: max(1, len(cuts) // 6)]:
            front, back = cutting.cut(network, layer)
            assert torch.equal(back(front(images)), logits), layer
    assert all(layer.cut or layer.uncut for layer in listed)
